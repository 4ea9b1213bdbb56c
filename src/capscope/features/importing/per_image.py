"""Regions in a file per image: HDF5 of the second extraction program, or NPZ and NPY."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from capscope.data.annotations import Image
from capscope.errors import CapscopeError
from capscope.features.importing.hdf5 import GuardedHdf5
from capscope.features.importing.hdf5_worker import LARGEST, Array
from capscope.features.importing.sources import (
    DamagedFeaturesError,
    Entry,
    checked_regions,
    files_below,
)
from capscope.features.regions import Regions

HDF5_NAMES = ("image_features", "image_boxes")
Size = Callable[[Image], tuple[int, int]]


class Hdf5Regions:
    """A folder with ``<image file name>.hdf5`` for each image, each with features and boxes.

    Boxes are in pixels of the image as it is annotated; classes and scores are not stored.
    """

    details: tuple[str, ...] = ()

    def __init__(self, path: Path, size: Size) -> None:
        self._paths = files_below(path, (".hdf5", ".h5"))
        self._size = size
        self._reader = GuardedHdf5()

    def scan(self) -> Iterator[Entry]:
        """Yield the files by name."""
        for path in self._paths:
            yield Entry(path.stem, str(path), path)

    def read(self, entry: Entry, image: Image) -> Regions:
        """Read one file."""
        cells, boxes = self._reader.read(entry.place, HDF5_NAMES).values()
        return checked_regions(cells, boxes, self._size(image), entry.where)

    def close(self) -> None:
        """End the process that reads."""
        self._reader.close()


class NpzRegions:
    """Folders ``<path>_att`` with ``<id>.npz`` (key ``feat``) and ``<path>_box`` with ``<id>.npy``.

    Boxes are in pixels of the image as it is annotated.
    """

    details: tuple[str, ...] = ()

    def __init__(self, path: Path, size: Size) -> None:
        self._features, self._boxes = (path.with_name(path.name + end) for end in ("_att", "_box"))
        for folder in (self._features, self._boxes):
            if not folder.is_dir():
                raise CapscopeError(
                    f"{folder} does not exist: give the beginning that the names of the folders "
                    "_att and _box have in common"
                )
        self._size = size

    def scan(self) -> Iterator[Entry]:
        """Yield the files by name."""
        for path in files_below(self._features, (".npz",)):
            yield Entry(path.stem, str(path), path)

    def read(self, entry: Entry, image: Image) -> Regions:
        """Read one image's two files."""
        cells = read_array(entry.place, "feat")
        boxes = read_array(self._boxes / f"{entry.name}.npy")
        return checked_regions(cells, boxes, self._size(image), entry.where)

    def close(self) -> None:
        """Nothing stays open."""


def read_array(path: Path, key: str | None = None) -> Array:
    """Read an NPY file, or the array `key` of an NPZ file; nothing is unpickled.

    Raises
    ------
    DamagedFeaturesError
        The file is missing, damaged, too large, of objects, or has no array `key`.
    """
    try:
        if key is None:
            array = np.load(path, allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as arrays:
                array = arrays[key]
    except KeyError as error:
        raise DamagedFeaturesError(f"{path} has no array {key!r}") from error
    except Exception as error:  # damaged files raise many types: zip, zlib, ValueError, EOFError
        raise DamagedFeaturesError(f"{path} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.size > LARGEST:
        raise DamagedFeaturesError(f"{path} holds no array of features")
    return array
