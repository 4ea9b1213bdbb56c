"""The captioners of golden/difnet: weights and inputs as the files hold them."""

import numpy as np
import torch
from image_networks import GOLDEN, Golden
from torch import Tensor

from capscope.features.visual import Features
from capscope.importers.difnet import from_original
from capscope.models.base import BaseTransformer

FOLDER = GOLDEN / "difnet"
MODELS = sorted(path.name for path in FOLDER.glob("model_*.npz"))
LRP = sorted(path.name for path in FOLDER.glob("lrp_*_lrp.npz"))


def load(name: str) -> Golden:
    return Golden(f"difnet/{name}")


def captioner(golden: Golden, *, parity: bool = True) -> BaseTransformer:
    meta = golden.meta
    options = {}
    if "in/pixel" in golden and "w/embed_pixel.1.weight" in golden:
        options = {"shared_layers": meta.get("Lf", 1), "iterations": meta.get("T_iter", 2)}
    built = from_original(
        golden.weights("w/"),
        heads=meta["h"],
        padding=meta["pad"],
        dropout=0.0,
        parity=parity,
        **options,
    ).eval()
    assert isinstance(built, BaseTransformer)
    return built


def features(golden: Golden, kind: torch.dtype = torch.float32) -> Features:
    """Return cells and segments, the latter as (B, cells, classes)."""
    segments = golden["in/pixel"].flatten(2).transpose(1, 2).to(kind)
    return Features(golden["in/grid"].to(kind), segments=segments)


def close(found: Tensor, expected: Tensor, relative: float, what: str = "") -> None:
    """Compare to a part of the largest expected entry."""
    scale = float(expected.abs().max())
    gap = float((found - expected).detach().abs().max())
    assert np.isfinite(gap), what
    assert gap <= relative * scale, f"{what}: {gap / max(scale, 1e-30):.2e} of the largest entry"
