"""The detector of the bottom-up fixtures, built from what the files say."""

import numpy as np
import torch
from image_networks import GOLDEN, Golden
from torch import Tensor, nn

from capscope.features.detector.backend import Found
from capscope.features.detector.boxes import not_empty, rescale
from capscope.features.detector.inputs import Preparation
from capscope.features.detector.network import BottomUpNetwork, Dimensions
from capscope.tensors import fit

FOLDER = GOLDEN / "bottom_up"
MAPS, LOGITS, FEATURES, PROBABILITIES, PIXELS = 5e-4, 1e-3, 1e-3, 1e-4, 5e-3
"""Tolerances of the fixtures' README."""
CASES = [path.stem for path in sorted(FOLDER.glob("image*_*.npz"))]


def golden(name: str) -> Golden:
    return Golden(f"bottom_up/{name}.npz")


def weights() -> dict[str, Tensor]:
    file = golden("weights")
    return {
        name: file[name]
        for name in file.arrays.files
        if name != "meta" and "cell_anchors" not in name
    }


def network(
    file: Golden, kind: type[nn.Module] = BottomUpNetwork, *, padded_pool: bool = False
) -> nn.Module:
    """Return the network of a fixture file, with the fixtures' weights."""
    meta, state = file.meta, weights()
    made = kind(
        Dimensions.of(state),
        Preparation(meta["min_size"], meta["max_size"]),
        anchor_sizes=meta["anchor_sizes"],
        before=meta["pre_nms"],
        proposals=meta["post_nms"],
        padded_pool=padded_pool,
    )
    fit(made, state, FOLDER)
    return made.eval().requires_grad_(False)


def found(file: Golden) -> Found:
    """Return what the original found, as the selections take it."""
    names = ("proposal_boxes", "pooled", "cls_logits", "box_deltas", "attr_logits")
    return Found(*(file[name] for name in names))


def sizes(file: Golden) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return height and width after resizing, and before."""
    after, before = (file.arrays[f"image_{kind}_bgr"].shape[:2] for kind in ("resized", "raw"))
    return (after[0], after[1]), (before[0], before[1])


def rgb(file: Golden) -> np.ndarray:
    return np.ascontiguousarray(file.arrays["image_raw_bgr"][..., ::-1])


def with_area(file: Golden, boxes: Tensor) -> Tensor:
    """Say which boxes have an area in the image; the original drops the others, of most arrays."""
    return not_empty(rescale(boxes, *sizes(file)))


def rows(array: Tensor, some: Tensor) -> Tensor:
    """Return the rows with an area of an array that may hold all."""
    return array[some] if len(array) == len(some) else array


def same(name: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape, f"{name}: {tuple(found.shape)}"
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, check_dtype=False, msg=name)
