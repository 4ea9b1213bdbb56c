"""Relative boxes and grid weights of the spatial transformer: golden/spatial."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from capscope.features.geometry import grid_marginals, grid_weights, relative_boxes

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden")) / "spatial"
TOLERANCE = 1e-6

Arrays = dict[str, npt.NDArray[np.generic]]


def load(name: str) -> Arrays:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files}


def tensor(array: npt.NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array))


def test_grid_weights_are_those_of_the_fixture() -> None:
    arrays = load("grid_vectors.npz")
    checked = 0
    for name, expected in arrays.items():
        match = re.fullmatch(r"grid(\d+)_(box|cell)", name)
        if match is None:
            continue
        side = math.isqrt(int(match[1]))
        found = grid_weights(tensor(arrays["boxes_rel"]), side, match[2])  # type: ignore[arg-type]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, tensor(expected), atol=TOLERANCE, rtol=TOLERANCE)
        checked += 1
    assert checked


def test_boxes_relative_to_the_image_are_those_of_the_fixture() -> None:
    arrays = load("grid_vectors.npz")
    width, height = (int(side) for side in tensor(arrays["image_wh"]))
    found = relative_boxes(tensor(arrays["boxes_abs"]), width, height)
    torch.testing.assert_close(found, tensor(arrays["boxes_rel_from_abs"]), atol=1e-12, rtol=0)


def test_the_position_encodings_read_the_same_weights() -> None:
    """The encoding by marginals needs no more than they do; here it is written out."""
    arrays = load("spatial_pe.npz")
    boxes, vectors = tensor(arrays["boxes_rel"]), tensor(arrays["grid_vec"])
    side = math.isqrt(vectors.shape[-1])
    torch.testing.assert_close(grid_weights(boxes, side), vectors, atol=TOLERANCE, rtol=TOLERANCE)
    rows, columns = grid_marginals(boxes, side)
    encoded = (
        tensor(arrays["gxg/w/fc3.bias"])
        + tensor(arrays["img"])[0] @ tensor(arrays["gxg/w/fc3.weight"]).T
    )
    for share, layer in ((rows, "fc1"), (columns, "fc2")):
        weight, bias = (tensor(arrays[f"gxg/w/{layer}.{part}"]) for part in ("weight", "bias"))
        encoded = encoded + share @ weight.T + bias
    torch.testing.assert_close(encoded, tensor(arrays["gxg/out"])[0], atol=1e-5, rtol=1e-5)


def test_the_models_of_the_fixtures_were_fed_these_weights() -> None:
    paths = sorted(FOLDER.glob("model_*.npz"))
    if not paths:
        pytest.skip(f"no fixture model_*.npz in {FOLDER} (CAPSCOPE_GOLDEN names another folder)")
    for path in paths:
        arrays = load(path.name)
        meta = json.loads(str(arrays["meta"]))
        if "in/boxes_rel" not in arrays:
            continue
        boxes, vectors = tensor(arrays["in/boxes_rel"]), tensor(arrays["in/grid_vec"])
        masks = arrays.get("in/att_masks")
        valid = torch.ones(boxes.shape[:2]) if masks is None else tensor(masks)
        found = grid_weights(boxes, math.isqrt(vectors.shape[-1]))
        torch.testing.assert_close(
            found[valid > 0], vectors[valid > 0], atol=TOLERANCE, rtol=TOLERANCE, msg=str(meta)
        )
