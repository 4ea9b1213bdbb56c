"""The captioners of golden/spatial: weights and inputs as the files hold them."""

import math
from typing import Any

import torch
from image_networks import GOLDEN, Golden
from torch import Tensor

from capscope.features.visual import Features
from capscope.importers.spatial import from_original
from capscope.models.captioner import Captioner

MODELS = sorted(path.name for path in (GOLDEN / "spatial").glob("model_*.npz"))
SHOW_TELL = sorted(path.name for path in (GOLDEN / "spatial").glob("show_tell_*.npz"))


def load(name: str) -> Golden:
    return Golden(f"spatial/{name}")


def transformer(golden: Golden, prefix: str = "w/", **config: Any) -> Captioner:
    """Return a transformer; what no weight tells stands in the file's meta, or its activations."""
    config = golden.meta.get("config", {}) | config
    if "heads" not in config:
        config["heads"] = load(MODELS[0])["out/enc_attn0"].shape[1]
    return from_original(
        "spatial",
        golden.weights(prefix),
        heads=config["heads"],
        activation=config.get("ff_activation", "relu").lower(),
        dropout=0.0,
    ).eval()


def regions(golden: Golden) -> Features:
    """Return the regions; grid vectors are what the boxes give (test_spatial_geometry)."""
    valid = golden["in/att_masks"].bool() if "in/att_masks" in golden else None
    if "in/boxes_rel" in golden:
        return Features(golden["in/att_feats"], golden["in/boxes_rel"], valid)
    return Features(golden["in/att_feats"], boxes_behind(golden["in/grid_vec"]), valid)


def boxes_behind(weights: Tensor) -> Tensor:
    """Return boxes (B, N, 4) that are spread over the grid as `weights` (B, N, cells) say.

    The cell with the largest share of a side is covered from edge to edge, which gives the side.
    """
    side = math.isqrt(weights.shape[-1])
    cells = weights.double().unflatten(-1, (side, side))
    ends = []
    for shares in (cells.sum(-2), cells.sum(-1)):  # of columns, of rows
        places = torch.arange(side)
        covered = shares > 0
        first = torch.where(covered, places, side).min(-1, keepdim=True).values.clamp(max=side - 1)
        last = torch.where(covered, places, -1).max(-1, keepdim=True).values.clamp(min=0)
        most = shares.max(-1, keepdim=True).values
        length = torch.where(most > 0, 1 / side / most, 0)
        low = (first + 1) / side - shares.gather(-1, first) * length
        high = last / side + shares.gather(-1, last) * length
        ends.append(torch.where(most > 0, torch.cat([low, high], -1), 0.0))
    return torch.stack([ends[0][..., 0], ends[1][..., 0], ends[0][..., 1], ends[1][..., 1]], -1)


def image(golden: Golden) -> Features:
    """Return the one feature of an image, (B, 1, D)."""
    return Features(golden["in/fc"].unsqueeze(1))


def show_tell(golden: Golden) -> Captioner:
    return from_original("show_tell", golden.weights("w/"), dropout=0.0).eval()
