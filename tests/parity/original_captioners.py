"""The captioners of the fixtures: weights, features and inputs as the files hold them."""

import torch
from image_networks import Golden, vgg
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.importers.lrp_ic import from_original
from capscope.models.captioner import SumCaptioner

KINDS = ["gridtd", "gridtd_bu", "aoa", "aoa_bu", "adaptive"]
"""The fixture files with captioners."""
RELEVANCE_KINDS = KINDS[:4]
"""Those that the original fine-tunes with relevance."""


def captioner_of(golden: Golden) -> tuple[SumCaptioner, nn.Sequential | None]:
    """Return the captioner in evaluation mode, and its image network if it has one."""
    name, dims = kind_of(golden).removesuffix("_bu"), golden.meta["dims"]
    options = {"heads": dims["heads"]} if name == "aoa" else {}
    captioner, network = from_original(name, golden.weights("w."), **options)
    assert isinstance(captioner, SumCaptioner)
    built = vgg(dims["cfg"], network) if network else None
    return captioner.eval(), built


def kind_of(golden: Golden) -> str:
    """Return which of `KINDS` a file holds."""
    kind: str = golden.meta.get("kind", "gridtd")
    return kind


def cells(grid: Tensor) -> Tensor:
    """Return a grid (B, C, h, w) as visual features (B, N, C)."""
    return grid.flatten(2).transpose(1, 2)


def features_of(golden: Golden) -> Features:
    return Features(cells(golden["feat"]) if "feat" in golden else golden["x"])


def close(found: Tensor, expected: Tensor, relative: float) -> None:
    """Compare with a tolerance relative to the largest expected magnitude."""
    assert found.shape == expected.shape
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * scale, check_dtype=False)
