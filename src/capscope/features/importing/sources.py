"""What the readers of published features share: entries, damage, and which image an entry is of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from capscope.data.annotations import Dataset, Image
from capscope.data.images import read_image
from capscope.errors import CapscopeError
from capscope.features.geometry import relative_boxes
from capscope.features.importing.hdf5_worker import Array
from capscope.features.regions import Regions

NO_REGION = "no region of this image, and captioners need one"
BEYOND = 1.0
"""Pixels by which a box may leave its image; more is an error, less is clipped."""

Item = TypeVar("Item", covariant=True)


class DamagedFeaturesError(CapscopeError):
    """An entry that cannot be used; ``dataset.on_unreadable: skip`` leaves its image out."""


@dataclass(frozen=True)
class Entry:
    """One image's features in a source.

    Attributes
    ----------
    name : str
        What the source calls the image.
    where : str
        The place as errors name it: a file, a file and a line, a file and a dataset.
    place : Any
        The place as the source needs it to read.
    checksum : int or None
        Equal for entries with equal content, where the source knows it without reading.
    """

    name: str
    where: str
    place: Any
    checksum: int | None = None


class Source(Protocol, Generic[Item]):
    """A file or folder of features."""

    def scan(self) -> Iterator[Entry]:
        """Yield what there is, in the order in which it is read fastest, without decoding it."""
        ...

    def read(self, entry: Entry, image: Image) -> Item:
        """Return the features of one entry; `DamagedFeaturesError` if they cannot be used."""
        ...

    def close(self) -> None:
        """Let go of open files."""
        ...


class ImageNames:
    """Finds the image that a source's name stands for.

    A name is the file's name, its stem, or ends with the image's id, as in
    ``COCO_train2014_000000132417``.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._by_id = {image.id: image for image in dataset.images}
        self._by_name: dict[str, Image] = {}
        for image in dataset.images:
            file = PurePosixPath(image.file)
            self._by_name[file.name] = self._by_name[file.stem] = image

    def find(self, name: str) -> Image | None:
        """Return the image, or None if the data set has none of this name."""
        named = self._by_name.get(name)
        if named is not None:
            return named
        digits = re.search(r"\d+$", name)
        return None if digits is None else self._by_id.get(int(digits[0]))


def size_finder(dataset: Dataset) -> Callable[[Image], tuple[int, int]]:
    """Return what tells width and height of an image, from its file where it is not annotated."""

    def size(image: Image) -> tuple[int, int]:
        if image.width and image.height:
            return image.width, image.height
        return read_image(dataset.path(image)).size

    return size


def checked_cells(cells: Array, where: str) -> Tensor:
    """Return features (n, D) as float32; an array of another shape or with NaN is damage."""
    if cells.ndim != 2 or not cells.shape[0] or not cells.shape[1]:
        raise DamagedFeaturesError(f"{where}: features of shape {cells.shape}, expected (n, D)")
    if cells.dtype.kind not in "fiu":
        raise DamagedFeaturesError(f"{where}: features of type {cells.dtype}, expected numbers")
    if not np.isfinite(cells).all():
        raise DamagedFeaturesError(f"{where}: features are infinite or not a number")
    return torch.from_numpy(np.array(cells, np.float32))


def checked_regions(
    cells: Array, boxes: Array, size: tuple[int, int], where: str, **details: Array | None
) -> Regions:
    """Return regions with boxes (n, 4) in pixels made relative to the image.

    Raises
    ------
    DamagedFeaturesError
        Naming `where`: shapes that do not fit, values that are not finite, boxes that lie outside
        of the image (by more than a pixel), are turned inside out or have no area in it, ids below
        zero, no region at all.
    """
    count = len(cells)
    if not count:
        raise DamagedFeaturesError(f"{where}: {NO_REGION}")
    if boxes.shape != (count, 4):
        raise DamagedFeaturesError(f"{where}: {count} features, boxes of shape {boxes.shape}")
    known = {name: array for name, array in details.items() if array is not None}
    for name, array in {"boxes": boxes, **known}.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise DamagedFeaturesError(f"{where}: {name} are infinite or not a number")
        if len(array) != count:
            raise DamagedFeaturesError(f"{where}: {count} features, {len(array)} {name}")
        if name.endswith("_ids") and (array < 0).any():
            raise DamagedFeaturesError(f"{where}: {name} are below zero")
    width, height = size
    if width < 1 or height < 1:
        raise DamagedFeaturesError(f"{where}: an image of {width} x {height} pixels")
    reach = boxes.reshape(-1, 2).max(0) - (width, height)
    if reach.max() > BEYOND or boxes.min() < -BEYOND:
        hint = "; are width and height swapped?" if max(*reach) <= abs(width - height) + 1 else ""
        raise DamagedFeaturesError(
            f"{where}: boxes leave the image of {width} x {height} pixels{hint}"
        )
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise DamagedFeaturesError(f"{where}: boxes are not x0, y0, x1, y1")
    relative = relative_boxes(torch.from_numpy(np.array(boxes, np.float64)), width, height).float()
    empty = (relative[:, 2:] <= relative[:, :2]).any(1).nonzero()[:, 0].tolist()
    if empty:
        named = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise DamagedFeaturesError(
            f"{where}: {len(empty)} of {count} boxes have no area (places {named}, from 0)"
        )
    return Regions(
        checked_cells(cells, where),
        relative,
        size,
        **{name: torch.from_numpy(np.array(array)) for name, array in known.items()},
    )


def files_below(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return `path`, or if it is a folder all files below it that end with one of `suffixes`."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise CapscopeError(f"{path} does not exist")
    found = sorted(file for file in path.rglob("*") if file.name.endswith(suffixes))
    if not found:
        raise CapscopeError(f"{path} holds no file that ends with {' or '.join(suffixes)}")
    return found
