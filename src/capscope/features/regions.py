"""Regions of an image: boxes that a detector found, with a feature each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.fields import Field
from capscope.features.visual import Features
from capscope.params import expand_path

DETAILS: dict[str, str] = {
    "class_ids": "int32",
    "scores": "float32",
    "attribute_ids": "int32",
    "attribute_scores": "float32",
}
"""What a source may know of each region besides box and feature, and the type it is stored in."""
NAMES = ("class_names", "attribute_names")
"""Attributes of a store: lists that class and attribute ids are places in."""
FILLING = {"class_ids": -1, "attribute_ids": -1}
"""What stands behind the last region; 0 for all other fields."""


class Regions(NamedTuple):
    """The n regions of one image, best first.

    Attributes
    ----------
    cells : Tensor (n, D)
    boxes : Tensor (n, 4)
        x0, y0, x1, y1 in [0, 1] of width and height.
    size : (width, height)
        Of the image in pixels, upright and before any resizing.
    class_ids, attribute_ids : Tensor (n,) int64 or None
        Places in the store's ``class_names`` and ``attribute_names``; -1 is none.
    scores, attribute_scores : Tensor (n,) float or None
    """

    cells: Tensor
    boxes: Tensor
    size: tuple[int, int]
    class_ids: Tensor | None = None
    scores: Tensor | None = None
    attribute_ids: Tensor | None = None
    attribute_scores: Tensor | None = None

    def pixel_boxes(self) -> Tensor:
        """Return the boxes (n, 4) in pixels of the image."""
        width, height = self.size
        return self.boxes * self.boxes.new_tensor([width, height, width, height])


def region_fields(
    regions: int, dim: int, dtype: str, details: Sequence[str] = tuple(DETAILS)
) -> dict[str, Field]:
    """Return the fields of a region store: at most `regions` an image, with these details."""
    fields = {
        "regions": Field((regions, dim), dtype),
        "boxes": Field((regions, 4), "float32"),
        "counts": Field((), "int32"),
        "sizes": Field((2,), "int32"),
    }
    return {**fields, **{name: Field((regions,), DETAILS[name]) for name in details}}


def pad_regions(images: Sequence[Regions], fields: Mapping[str, Field]) -> dict[str, NDArray[Any]]:
    """Lay the regions of B images out as rows of a region store's fields.

    Raises
    ------
    ValueError
        More regions than a row holds, another dimension, a box outside of [0, 1], a detail that
        the fields have and an image has not.
    """
    most, dim = fields["regions"].shape
    rows: dict[str, NDArray[Any]] = {
        name: np.full((len(images), *field.shape), FILLING.get(name, 0), _wide(field.dtype))
        for name, field in fields.items()
    }
    for row, image in enumerate(images):
        count = len(image.cells)
        if count > most or image.cells.shape[1:] != (dim,) or image.boxes.shape != (count, 4):
            raise ValueError(
                f"regions {tuple(image.cells.shape)} with boxes {tuple(image.boxes.shape)} do not "
                f"fit {(most, dim)}"
            )
        boxes = image.boxes.double()
        if count and not ((boxes >= 0) & (boxes <= 1)).all():
            raise ValueError("boxes must be in [0, 1] of width and height")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise ValueError("boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1")
        rows["regions"][row, :count] = image.cells.numpy(force=True)
        rows["boxes"][row, :count] = boxes.numpy(force=True)
        rows["counts"][row], rows["sizes"][row] = count, image.size
        for name in DETAILS:
            if name in fields:
                detail: Tensor | None = getattr(image, name)
                if detail is None or len(detail) != count:
                    raise ValueError(f"{name} must be given for each of {count} regions")
                rows[name][row, :count] = detail.numpy(force=True)
    return rows


def batch_of(images: Sequence[Regions], most: int) -> Features:
    """Return the regions of B images as a captioner takes them, padded to `most`."""
    counts = torch.tensor([len(image.cells) for image in images])
    cells = torch.zeros(len(images), most, images[0].cells.shape[1])
    boxes = torch.zeros(len(images), most, 4)
    for row, image in enumerate(images):
        cells[row, : counts[row]], boxes[row, : counts[row]] = image.cells, image.boxes
    valid = torch.arange(most) < counts[:, None]
    class_ids = None
    known = [image.class_ids for image in images if image.class_ids is not None]
    if len(known) == len(images):
        class_ids = torch.full((len(images), most), FILLING["class_ids"])
        for row, ids in zip(class_ids, known, strict=True):
            row[: len(ids)] = ids
    return Features(cells, boxes, None if bool(valid.all()) else valid, None, class_ids)


def read_names(path: str) -> list[str]:
    """Read a word list: a line an entry, synonyms behind commas, of which the first is taken."""
    where = expand_path(path)
    try:
        lines = where.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CapscopeError(f"the names {where} cannot be read: {error}") from error
    return [line.split(",")[0].strip().lower() for line in lines]


def regions_of_row(arrays: Mapping[str, NDArray[Any]], row: int) -> Regions:
    """Return one image's regions from the arrays of a region store, without the padding."""
    count = int(arrays["counts"][row])
    width, height = arrays["sizes"][row].tolist()

    def part(name: str) -> Tensor | None:
        if name not in arrays:
            return None
        values = torch.from_numpy(np.array(arrays[name][row, :count]))
        return values.long() if DETAILS[name] == "int32" else values

    return Regions(
        torch.from_numpy(np.array(arrays["regions"][row, :count], np.float32)),
        torch.from_numpy(np.array(arrays["boxes"][row, :count])),
        (width, height),
        *(part(name) for name in DETAILS),
    )


def _wide(dtype: str) -> str:
    # Half precision is reached by the writer, which reports overflow.
    return "float32" if dtype == "float16" else dtype
