"""The feature store: one HDF5 file, written at once, read through a memory map.

``features.h5`` holds ``ids`` (N,) int64 and ``grid`` (N, h*w, D) float16 or float32, contiguous:
HDF5 tells where the array starts in the file, and a memory map reads any rows from there without
HDF5 in between. The file is also written at that place, so that a full disk shows as such.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.files import atomic_path, read_manifest

FEATURES_FILE = "features.h5"
IDENTITY = (
    *("network", "layer", "image_size", "grid", "weights_sha256"),
    *("scale", "positions", "position_scale"),
)
"""Attributes in which the features of two stores must agree to be of the same kind."""


def grid_boxes(grid: tuple[int, int]) -> Tensor:
    """Return the cells of an h x w grid, row by row, as x0, y0, x1, y1 in [0, 1]: (h*w, 4)."""
    height, width = grid
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    edges = torch.stack([columns, rows, columns + 1, rows + 1], -1).flatten(0, 1)
    return edges / torch.tensor([width, height, width, height])


class FeatureWriter:
    """Writes the features of images in the order of their ids; made by `create_store`."""

    def __init__(
        self,
        path: Path,
        ids: NDArray[np.int64],
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        attributes: Mapping[str, Any],
    ) -> None:
        self.ids, self.shape, self.dtype = ids, shape, dtype
        self.done = 0
        self._checksum = 0
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)  # the same features give the same bytes
        with h5py.File(path, "w") as file:
            file["ids"] = ids
            file.attrs["attributes"] = json.dumps(dict(attributes))
            space = h5py.h5s.create_simple((len(ids), *shape))
            kind = h5py.h5t.py_create(dtype)
            dataset = h5py.h5d.create(file.id, b"grid", kind, space, layout)
            self._offset = int(dataset.get_offset())
        self._stream = path.open("r+b", buffering=0)
        self._stream.seek(self._offset)

    def append(self, cells: Tensor) -> None:
        """Write the features (B, h*w, D) of the next B images."""
        with np.errstate(over="ignore"):  # an overflow is reported below, with the image
            rows = np.ascontiguousarray(cells.numpy(force=True), self.dtype)
        ids = self.ids[self.done : self.done + len(rows)]
        if rows.shape[1:] != self.shape or len(ids) < len(rows):
            raise ValueError(f"features of shape {rows.shape} do not fit {self.shape}")
        for image_id, row in zip(ids, rows, strict=True):
            if not np.isfinite(row).all():
                raise CapscopeError(
                    f"image {image_id}: features are infinite or not a number as {self.dtype}; "
                    "use features.grid.dtype=float32, or check the weights"
                )
        data = rows.data.cast("B")
        self._checksum = zlib.crc32(data, self._checksum)
        while data:
            data = data[self._stream.write(data) :]
        self.done += len(rows)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def verify(self, path: Path) -> None:
        """Compare the file with what was appended; what a disk swallowed is found here."""
        if self.done != len(self.ids):
            raise ValueError(f"only {self.done} of {len(self.ids)} images were written")
        ids, grid, _ = _map(path)
        checksum = 0
        for start in range(0, len(grid), 256):
            checksum = zlib.crc32(grid[start : start + 256].data.cast("B"), checksum)
        if checksum != self._checksum or not np.array_equal(ids, self.ids):
            raise CapscopeError(
                f"{path} reads back differently from what was written; check the disk"
            )


@contextmanager
def create_store(
    folder: Path,
    ids: Sequence[int],
    *,
    cells: int,
    dim: int,
    dtype: str,
    attributes: Mapping[str, Any],
) -> Iterator[FeatureWriter]:
    """Yield a writer for ``features.h5``; the file appears when the block ends, or not at all.

    Parameters
    ----------
    ids : sequence of int
        The images, in the order in which their features will come.
    cells, dim : int
        Shape of the features of one image.
    dtype : {"float16", "float32"}
    attributes : mapping
        JSON-serialisable description of the features: network, layer, grid, ...

    Raises
    ------
    CapscopeError
        There is no room for the file; or a value overflows `dtype` or is not finite.
    """
    kind = np.dtype(dtype)
    path = folder / FEATURES_FILE
    with atomic_path(path) as temporary:
        needed = len(ids) * cells * dim * kind.itemsize
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise CapscopeError(f"{path} needs {needed:,} bytes, {folder} has {free:,} left")
        os.truncate(temporary, needed)  # refused here beyond a limit; HDF5 crashes on such errors
        writer = FeatureWriter(temporary, np.array(ids, np.int64), (cells, dim), kind, attributes)
        try:
            yield writer
        finally:
            writer.close()
        writer.verify(temporary)


def _map(path: Path) -> tuple[NDArray[np.int64], NDArray[Any], dict[str, Any]]:
    """Return ids, the memory-mapped features and the attributes of a features file."""
    try:
        with h5py.File(path, "r") as file:
            ids, attributes = file["ids"][()], json.loads(file.attrs["attributes"])
            grid = file["grid"]
            shape, dtype, offset = grid.shape, grid.dtype, grid.id.get_offset()
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise CapscopeError(f"{path} is not a feature store: {error}") from error
    if len(ids) != shape[0] or len(shape) != 3 or offset is None:
        raise CapscopeError(f"{path} is not a feature store: {len(ids)} ids, features {shape}")
    mapped = np.memmap(path, dtype, "r", offset, shape)
    return ids, mapped.view(np.ndarray), attributes


class FeatureStore:
    """Visual features on disk, read by image id.

    Attributes
    ----------
    ids : (N,) int64
    grid : (h, w)
    dim : int
    attributes : dict
        What the features are: network, layer, image_size, weights_sha256, ...
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids, self._cells, self.attributes = _map(path)
        height, width = self.attributes["grid"]
        self.grid: tuple[int, int] = (int(height), int(width))
        self.dim = int(self._cells.shape[2])
        self._order = np.argsort(self.ids)
        self._sorted = self.ids[self._order]
        self._boxes = grid_boxes(self.grid)

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Open what ``capscope features`` made; its manifest is checked against the file."""
        read_manifest(folder, "features")
        return cls(folder / FEATURES_FILE)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __contains__(self, image_id: int) -> bool:
        """Say whether the store holds an image."""
        position = int(np.searchsorted(self._sorted, image_id))
        return position < len(self._sorted) and int(self._sorted[position]) == image_id

    def rows(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> NDArray[np.int64]:
        """Return the rows of images in the file; an unknown image is a `CapscopeError`."""
        wanted = np.asarray(ids, np.int64)
        positions = np.searchsorted(self._sorted, wanted).clip(max=len(self.ids) - 1)
        unknown = wanted[self._sorted[positions] != wanted]
        if unknown.size:
            raise CapscopeError(
                f"{self.path} has no features of image {unknown[0]} ({unknown.size} missing): "
                "it was made from other data; run `capscope features` again"
            )
        found: NDArray[np.int64] = self._order[positions]
        return found

    def read(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> Features:
        """Return the features of images, in the given order, as float32."""
        cells = torch.from_numpy(self._cells[self.rows(ids)]).float()
        return Features(cells, self._boxes.expand(len(cells), -1, -1))

    def check_same_kind(self, attributes: Mapping[str, Any], owner: str) -> None:
        """Refuse if `owner` (a run) was made with features of another kind than these."""
        for name in IDENTITY:
            if self.attributes.get(name) != attributes.get(name):
                raise CapscopeError(
                    f"{self.path} holds features with {name} = {self.attributes.get(name)!r}, "
                    f"but {owner} was trained with {attributes.get(name)!r}"
                )
