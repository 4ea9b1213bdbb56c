"""A feature store as folders with a file an image, which self-critical captioning programs read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from capscope.features.geometry import grid_weights
from capscope.features.store import FeatureStore
from capscope.files import MANIFEST, atomic_path, write_manifest, writing

Array = NDArray[Any]


def write_folders(
    store_dir: Path, out: Path, *, grid: int = 12, mode: Literal["box", "cell"] = "box"
) -> None:
    """Write the features of all images as the spatial transformer's scripts do.

    ``att/<id>.npz`` has them under ``feat``: maps (h, w, D) of a grid, or regions (n, D);
    ``fc/<id>.npy`` their mean (D,). Of regions also ``box/<id>.npy``, corners in pixels (n, 4);
    ``rel_box/<id>.npy``, relative to the image, in double precision; and ``box_vec/<id>.npy``, the
    shares (n, grid^2) of each box in the cells of a grid (`grid_weights`).

    Parameters
    ----------
    store_dir : Path
        From ``capscope features``.
    out : Path
        Gets the folders, and a manifest when all is written.
    grid, mode : int, {"box", "cell"}
        Rows and columns, and kind, of the grid vectors.
    """
    store = FeatureStore.open(store_dir)
    folders = ["att", "fc"]
    if store.kind == "regions":
        folders += ["box", "rel_box", "box_vec"]
    with writing(out):
        (out / MANIFEST).unlink(missing_ok=True)
        for name in folders:
            (out / name).mkdir(parents=True, exist_ok=True)
        for image_id in tqdm(store.ids.tolist(), unit="image", desc="folders"):
            for name, array in _arrays(store, image_id, grid, mode).items():
                suffix = ".npz" if name == "att" else ".npy"
                _save(out / name / f"{image_id}{suffix}", array)
        settings = {"grid": grid, "mode": mode}
        inputs = {"features": store_dir / MANIFEST}
        write_manifest(
            out,
            "feature folders",
            params=settings,
            inputs=inputs,
            folders=folders,
            images=len(store),
        )


def _arrays(
    store: FeatureStore, image_id: int, grid: int, mode: Literal["box", "cell"]
) -> dict[str, Array]:
    if store.kind == "grid":
        maps = store.read([image_id]).cells[0].numpy()
        return {"att": maps.reshape(*store.grid, -1), "fc": maps.mean(0)}
    regions = store.regions(image_id)
    cells, boxes = regions.cells.float(), regions.boxes.double()
    found = {
        "att": cells,
        "fc": cells.mean(0),
        "box": regions.pixel_boxes().float(),
        "rel_box": boxes,
        "box_vec": grid_weights(boxes, grid, mode),
    }
    return {name: tensor.numpy() for name, tensor in found.items()}


def _save(path: Path, array: Array) -> None:
    content = io.BytesIO()
    if path.suffix == ".npz":
        np.savez_compressed(content, feat=array)
    else:
        np.save(content, array)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())
