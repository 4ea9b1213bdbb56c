"""The feature store: one HDF5 file, written at once, read through a memory map by image id.

``features.h5`` holds ``ids`` (N,) int64 and contiguous fields with a row an image: either ``grid``
(h*w, D) or ``regions`` (R, D) with ``boxes`` (R, 4), ``counts``, ``sizes`` and what else is known
of each region (`capscope.features.regions`). Either may have ``segments`` (M, S) besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.fields import Field, FieldWriter, create_fields, map_fields
from capscope.features.regions import DETAILS, Regions, pad_regions, region_fields, regions_of_row
from capscope.features.resume import resume_fields
from capscope.features.visual import Features
from capscope.files import read_manifest

FEATURES_FILE = "features.h5"
IDENTITY = (
    *("kind", "network", "layer", "image_size", "grid", "regions", "dim", "weights_sha256"),
    *("scale", "positions", "position_scale", "selection", "segments"),
)
"""Attributes in which the features of two stores must agree to be of the same kind."""


def grid_boxes(grid: tuple[int, int]) -> Tensor:
    """Return the cells of an h x w grid, row by row, as x0, y0, x1, y1 in [0, 1]: (h*w, 4)."""
    height, width = grid
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    edges = torch.stack([columns, rows, columns + 1, rows + 1], -1).flatten(0, 1)
    return edges / torch.tensor([width, height, width, height])


class FeatureWriter:
    """Writes the grid features of images in the order of their ids; made by `create_store`."""

    def __init__(self, fields: FieldWriter) -> None:
        self._fields = fields

    @property
    def done(self) -> int:
        """Images that are written, some of them by an earlier process perhaps."""
        return self._fields.done

    @property
    def fields(self) -> dict[str, Field]:
        """The fields of the store, in the order in which they were made."""
        return self._fields.fields

    def append(self, cells: Tensor, segments: Tensor | None = None) -> None:
        """Write the features (B, h*w, D) of the next B images, and their segments (B, M, S)."""
        arrays = {"grid": cells.numpy(force=True)}
        if segments is not None:
            arrays["segments"] = segments.numpy(force=True)
        self._fields.append(arrays)


class RegionWriter:
    """Writes the regions of images in the order of their ids; made by `create_region_store`."""

    def __init__(self, fields: FieldWriter) -> None:
        self._fields = fields

    @property
    def done(self) -> int:
        """Images that are written, some of them by an earlier process perhaps."""
        return self._fields.done

    @property
    def fields(self) -> dict[str, Field]:
        """The fields of the store, in the order in which they were made."""
        return self._fields.fields

    def append(self, images: Sequence[Regions], segments: Tensor | None = None) -> None:
        """Write the regions of the next images, and their segments (B, M, S)."""
        if not images:
            return
        arrays = pad_regions(images, self._fields.fields)
        if segments is not None:
            arrays["segments"] = segments.numpy(force=True)
        self._fields.append(arrays)


@contextmanager
def create_store(
    folder: Path,
    ids: Sequence[int],
    *,
    cells: int,
    dim: int,
    dtype: str,
    attributes: Mapping[str, Any],
    segments: tuple[int, int] | None = None,
    identity: str | None = None,
) -> Iterator[FeatureWriter]:
    """Yield a writer for grid features; the file appears when the block ends, or not at all.

    Parameters
    ----------
    ids : sequence of int
        The images, in the order in which their features will come.
    cells, dim : int
        Shape of the features of one image.
    dtype : {"float16", "float32"}
    attributes : mapping
        JSON-serialisable description of the features: network, layer, grid, ...
    segments : (M, S), optional
        Shape of an image's segments, if each comes with some.
    identity : str, optional
        With it, what an interrupted writer of the same identity wrote is gone on with: see
        `capscope.features.resume`.

    Raises
    ------
    CapscopeError
        There is no room for the file; or a value overflows `dtype` or is not finite.
    """
    fields = {"grid": Field((cells, dim), dtype), **_segments(segments, dtype)}
    with _writing(folder / FEATURES_FILE, ids, fields, attributes, identity) as writer:
        yield FeatureWriter(writer)


@contextmanager
def create_region_store(
    folder: Path,
    ids: Sequence[int],
    *,
    regions: int,
    dim: int,
    dtype: str,
    attributes: Mapping[str, Any],
    details: Sequence[str] = tuple(DETAILS),
    segments: tuple[int, int] | None = None,
    identity: str | None = None,
) -> Iterator[RegionWriter]:
    """Yield a writer for region features; the file appears when the block ends, or not at all.

    Parameters
    ----------
    ids : sequence of int
        The images, in the order in which their regions will come.
    regions, dim : int
        An image has at most `regions` regions (shorter rows are padded), with `dim` numbers each.
    dtype : {"float16", "float32"}
        Of the features; boxes and scores are float32.
    attributes : mapping
        JSON-serialisable description: network, weights_sha256, selection, class_names, ...;
        ``kind``, ``regions`` and ``dim`` are added.
    details : sequence of str
        Which of `capscope.features.regions.DETAILS` every image has.
    segments : (M, S), optional
        Shape of an image's segments, if each comes with some.
    identity : str, optional
        As in `create_store`.
    """
    fields = {**region_fields(regions, dim, dtype, details), **_segments(segments, dtype)}
    described = {"kind": "regions", "regions": regions, "dim": dim, **attributes}
    with _writing(folder / FEATURES_FILE, ids, fields, described, identity) as writer:
        yield RegionWriter(writer)


def _writing(
    path: Path,
    ids: Sequence[int],
    fields: Mapping[str, Field],
    attributes: Mapping[str, Any],
    identity: str | None,
) -> AbstractContextManager[FieldWriter]:
    if identity is None:
        return create_fields(path, ids, fields, attributes)
    return resume_fields(path, ids, fields, attributes, identity)


def _segments(shape: tuple[int, int] | None, dtype: str) -> dict[str, Field]:
    return {} if shape is None else {"segments": Field(shape, dtype)}


class FeatureStore:
    """Visual features on disk, read by image id.

    Attributes
    ----------
    ids : (N,) int64
    kind : {"grid", "regions"}
    grid : (h, w)
        Of a grid store; (R, 1) of a region store.
    count, dim : int
        Cells or regions of an image, and their length.
    attributes : dict
        What the features are: network, layer, image_size, weights_sha256, ...; of regions also
        class_names and attribute_names, where they are known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids, self._arrays, self.attributes = map_fields(path)
        self.kind = "regions" if "regions" in self._arrays else "grid"
        needed = ("boxes", "counts", "sizes") if self.kind == "regions" else ()
        missing = [name for name in (self.kind, *needed) if name not in self._arrays]
        if missing or self._arrays[self.kind].ndim != 3:
            raise CapscopeError(
                f"{path} is not a feature store: it holds {', '.join(self._arrays) or 'nothing'}"
            )
        self._cells = self._arrays[self.kind]
        self.count, self.dim = (int(size) for size in self._cells.shape[1:])
        if self.kind == "grid":
            height, width = self.attributes["grid"]
            self.grid: tuple[int, int] = (int(height), int(width))
            self._boxes = grid_boxes(self.grid)
            self._all_valid = True
        else:
            self.grid = (int(self._cells.shape[1]), 1)
            counts = self._arrays["counts"]
            self._all_valid = bool((counts == self._cells.shape[1]).all())
        self._order = np.argsort(self.ids)
        self._sorted = self.ids[self._order]

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Open what ``capscope features`` made; its manifest is checked against the file."""
        read_manifest(folder, "features")
        return cls(folder / FEATURES_FILE)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @property
    def segments(self) -> int | None:
        """Classes of the segments; None if the store has none."""
        found = self._arrays.get("segments")
        return None if found is None else int(found.shape[2])

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
        """Return the features of images, in the given order, as float32.

        Regions behind an image's last are zero and not `valid`; ``valid`` is None where every
        image of the store has all of its regions.
        """
        rows = self.rows(ids)
        cells = torch.from_numpy(self._cells[rows]).float()
        segments = None
        if "segments" in self._arrays:
            segments = torch.from_numpy(self._arrays["segments"][rows]).float()
        if self.kind == "grid":
            return Features(cells, self._boxes.expand(len(cells), -1, -1), None, segments)
        valid = None
        if not self._all_valid:
            counts = torch.from_numpy(self._arrays["counts"][rows])
            valid = torch.arange(cells.shape[1]) < counts[:, None]
        boxes = torch.from_numpy(self._arrays["boxes"][rows])
        class_ids = None
        if "class_ids" in self._arrays:
            class_ids = torch.from_numpy(self._arrays["class_ids"][rows]).long()
        return Features(cells, boxes, valid, segments, class_ids)

    def regions(self, image_id: int) -> Regions:
        """Return all that is known of the regions of one image."""
        if self.kind != "regions":
            raise CapscopeError(f"{self.path} holds grid cells, no regions")
        return regions_of_row(self._arrays, int(self.rows([image_id])[0]))

    def check_same_kind(self, attributes: Mapping[str, Any], owner: str) -> None:
        """Refuse if `owner` (a run) was made with features of another kind than these.

        A run without segments reads features with segments all the same.
        """
        for name in IDENTITY:
            if name == "segments" and attributes.get(name) is None:
                continue
            if self.attributes.get(name) != attributes.get(name):
                raise CapscopeError(
                    f"{self.path} holds features with {name} = {self.attributes.get(name)!r}, "
                    f"but {owner} was trained with {attributes.get(name)!r}"
                )
