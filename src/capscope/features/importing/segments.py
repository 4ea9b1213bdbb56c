"""Segments of others: how much of every panoptic class is in every cell, as DIFNet reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from capscope.data.annotations import Image
from capscope.features.importing.hdf5 import GuardedHdf5
from capscope.features.importing.hdf5_worker import Array
from capscope.features.importing.per_image import read_array
from capscope.features.importing.sources import (
    DamagedFeaturesError,
    Entry,
    checked_cells,
    files_below,
)


class NpySegments:
    """A folder, with or without subfolders, of ``<id>.npy`` (S, h, w): S classes."""

    def __init__(self, path: Path) -> None:
        self._paths = files_below(path, (".npy",))

    def scan(self) -> Iterator[Entry]:
        """Yield the files by name."""
        for path in self._paths:
            yield Entry(path.stem, str(path), path)

    def read(self, entry: Entry, image: Image) -> Tensor:
        """Return the classes of the cells of one image, row by row: (h*w, S)."""
        return segment_cells(read_array(entry.place), entry.where)

    def close(self) -> None:
        """Nothing stays open."""


class Hdf5Segments:
    """An HDF5 file with a dataset (S, h, w) for each image, whose name begins with the id."""

    def __init__(self, path: Path) -> None:
        self._paths = files_below(path, (".hdf5", ".h5"))
        self._reader = GuardedHdf5()

    def scan(self) -> Iterator[Entry]:
        """Yield the datasets of all files; names that begin with no id are passed over."""
        for path in self._paths:
            for name in self._reader.names(path):
                match = re.fullmatch(r"(\d+)(_\w+)?", name)
                if match is not None:
                    yield Entry(match[1], f"{path}, dataset {name}", (path, name))

    def read(self, entry: Entry, image: Image) -> Tensor:
        """Return the classes of the cells of one image, row by row: (h*w, S)."""
        path, name = entry.place
        return segment_cells(self._reader.read(path, [name])[name], entry.where)

    def close(self) -> None:
        """End the process that reads."""
        self._reader.close()


def segment_cells(array: Array, where: str) -> Tensor:
    """Return maps (S, h, w) as cells (h*w, S)."""
    if array.ndim != 3 or not array.size:
        raise DamagedFeaturesError(f"{where}: segments of shape {array.shape}, expected (S, h, w)")
    if array.dtype.kind == "b":
        array = array.astype("uint8")
    return checked_cells(array.reshape(len(array), -1), where).T.contiguous().to(torch.float32)
