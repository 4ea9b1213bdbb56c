"""Grid features of others: one HDF5 file for all images, or an NPZ file for each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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

SIDE = 7
"""Rows and columns to which maps of another size are pooled, as in Zhang et al., "RSTNet"."""
HDF5_ENDS = ("_features", "_grids", "")
"""What follows the image's id in the names of datasets."""


class Hdf5Grids:
    """One HDF5 file with a dataset ``<id>_features`` or ``<id>_grids`` for each image.

    A dataset holds cells (h*w, D) row by row, or the maps (D, h, w) or (1, D, h, w) of a network,
    which are pooled to 7 x 7 cells.

    Parameters
    ----------
    parity : bool
        As published: too few cells are filled up with zeros, too many are cut, to 7 x 7.
    """

    def __init__(self, path: Path, parity: bool = False) -> None:
        self._paths = files_below(path, (".hdf5", ".h5"))
        self._parity = parity
        self._reader = GuardedHdf5()

    def scan(self) -> Iterator[Entry]:
        """Yield the datasets of all files; those of other things are passed over."""
        for path in self._paths:
            for name in self._reader.names(path):
                match = re.fullmatch(rf"(\d+)({'|'.join(HDF5_ENDS)})", name)
                if match is not None:
                    yield Entry(match[1], f"{path}, dataset {name}", (path, name))

    def read(self, entry: Entry, image: Image) -> Tensor:
        """Return the cells (h*w, D) of one image."""
        path, name = entry.place
        return grid_cells(self._reader.read(path, [name])[name], entry.where, self._parity)

    def close(self) -> None:
        """End the process that reads."""
        self._reader.close()


class NpzGrids:
    """A folder with ``<id>.npz`` for each image: ``feat`` (h, w, D), or cells (h*w, D)."""

    def __init__(self, path: Path) -> None:
        self._paths = files_below(path, (".npz",))

    def scan(self) -> Iterator[Entry]:
        """Yield the files by name."""
        for path in self._paths:
            yield Entry(path.stem, str(path), path)

    def read(self, entry: Entry, image: Image) -> Tensor:
        """Return the cells (h*w, D) of one image."""
        cells = read_array(entry.place, "feat")
        if cells.ndim == 3:
            if cells.shape[0] != cells.shape[1]:
                raise DamagedFeaturesError(f"{entry.where}: a grid of shape {cells.shape}")
            cells = cells.reshape(-1, cells.shape[2])
        return grid_cells(cells, entry.where)

    def close(self) -> None:
        """Nothing stays open."""


def grid_cells(array: Array, where: str, parity: bool = False) -> Tensor:
    """Return cells (h*w, D) of a square grid, from cells or from the maps of a network."""
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 3:
        maps = torch.from_numpy(np.array(array, np.float32)).unsqueeze(0)
        if 0 in maps.shape:
            raise DamagedFeaturesError(f"{where}: maps of shape {array.shape}")
        array = functional.adaptive_avg_pool2d(maps, SIDE)[0].flatten(1).T.numpy()
    cells = checked_cells(array, where)
    if parity:
        cells = functional.pad(cells, (0, 0, 0, max(0, SIDE**2 - len(cells))))[: SIDE**2]
    if math.isqrt(len(cells)) ** 2 != len(cells):
        raise DamagedFeaturesError(
            f"{where}: {len(cells)} cells make no square grid; --parity fills up or cuts to "
            f"{SIDE} x {SIDE}, as DIFNet does"
        )
    return cells
