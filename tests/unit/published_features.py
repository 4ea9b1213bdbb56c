"""Files of features as others published them, and a data set whose images they are of."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capscope.data.annotations import Dataset, Image, karpathy_json
from capscope.files import write_json, write_manifest
from capscope.params import Params, load_params, merge

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, DIM = 64, 48, 6


class Published(NamedTuple):
    """The regions of one image."""

    boxes: NDArray[np.float32]
    cells: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    attribute_ids: NDArray[np.int64]
    attribute_scores: NDArray[np.float32]


def drawn(seed: int, count: int = 5, dim: int = DIM) -> Published:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), 1) * (WIDTH, HEIGHT)
    return Published(
        corners.reshape(count, 4).astype(np.float32),
        rng.random((count, dim)).astype(np.float32),
        rng.integers(0, 9, count),
        rng.random(count).astype(np.float32),
        rng.integers(0, 4, count),
        rng.random(count).astype(np.float32),
    )


def text(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def six_columns(name: object, regions: Published) -> str:
    count = len(regions.cells)
    arrays = text(regions.boxes), text(regions.cells)
    return "\t".join([str(name), str(WIDTH), str(HEIGHT), str(count), *arrays]) + "\n"


def ten_columns(name: object, regions: Published) -> str:
    details = [text(part) for part in regions[2:]]
    arrays = text(regions.boxes), text(regions.cells)
    count = str(len(regions.cells))
    return "\t".join([str(name), str(HEIGHT), str(WIDTH), *details, count, *arrays]) + "\r\n"


def data_folder(
    folder: Path, files: Mapping[int, str], sizes: Mapping[int, tuple[int, int]] | None = None
) -> Path:
    """Write a finished data folder with images of these ids and names."""
    width_height = sizes or dict.fromkeys(files, (WIDTH, HEIGHT))
    images = [
        Image(image_id, name, "train", ("a cat",), (("a", "cat"),), *width_height[image_id])
        for image_id, name in files.items()
    ]
    write_json(folder / "dataset.json", karpathy_json(Dataset("toy", folder, tuple(images))))
    write_manifest(folder, "data", params={})
    return folder


@cache
def _float32_params() -> Params:
    features = {kind: {"dtype": "float32"} for kind in ("grid", "regions")}
    return merge(load_params([ROOT / "params.yaml"]), {"features": features})


def import_params(**changes: Any) -> Params:
    """Return parameters that import as float32, with these changes."""
    return merge(_float32_params(), changes)
