"""Segments of COCO's instances: the polygons of objects, or their boxes where there is no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import Tensor

from capscope.data.annotations import Image
from capscope.errors import CapscopeError
from capscope.features.importing.labels import LabelSource
from capscope.features.importing.sources import DamagedFeaturesError, Entry
from capscope.features.panoptic import CHANNELS
from capscope.files import read_json


class _Object(NamedTuple):
    category: int
    area: float
    outlines: tuple[tuple[float, ...], ...]
    """Polygons x0, y0, x1, y1, ... in pixels."""


class InstanceLabels(LabelSource):
    """COCO's instances (a JSON file): the classes of things; pixels of stuff have none.

    Large objects are painted first, so that none hides a smaller one. Crowds, and objects whose
    outline is run-length encoded, are boxes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(len(CHANNELS))
        loaded = read_json(path)
        self._path = path
        try:
            self._sizes = {
                int(one["id"]): (int(one["width"]), int(one["height"])) for one in loaded["images"]
            }
            self._objects: dict[int, list[_Object]] = {number: [] for number in self._sizes}
            for one in loaded["annotations"]:
                self._objects[int(one["image_id"])].append(_object(one))
        except (KeyError, TypeError, ValueError) as error:
            raise CapscopeError(f"{path} does not hold COCO's instances: {error!r}") from error

    def scan(self) -> Iterator[Entry]:
        """Yield all images, those without an object too."""
        for number in self._sizes:
            yield Entry(str(number), f"{self._path}, image {number}", number)

    def labels(self, entry: Entry, image: Image) -> Tensor:
        """Paint the objects of one image."""
        width, height = self._sizes[entry.place]
        if width < 1 or height < 1:
            raise DamagedFeaturesError(f"{entry.where}: an image of {width} x {height} pixels")
        canvas = Pillow.new("I", (width, height), -1)
        draw = ImageDraw.Draw(canvas)
        for one in sorted(self._objects[entry.place], key=lambda found: -found.area):
            if one.category not in CHANNELS:
                raise DamagedFeaturesError(
                    f"{entry.where}: category {one.category} is none of COCO's {len(CHANNELS)}"
                )
            for outline in one.outlines:
                draw.polygon(outline, fill=CHANNELS[one.category])
        return torch.from_numpy(np.array(canvas, np.int64))


def _object(one: Mapping[str, Any]) -> _Object:
    x, y, width, height = map(float, one["bbox"])
    right, low = x + max(width, 1) - 1, y + max(height, 1) - 1  # the last pixels that are painted
    outlines: list[tuple[float, ...]] = [(x, y, right, y, right, low, x, low)]
    polygons = one.get("segmentation")
    if isinstance(polygons, list) and polygons and not one.get("iscrowd"):
        outlines = [tuple(map(float, polygon)) for polygon in polygons if len(polygon) >= 6]
    return _Object(int(one["category_id"]), float(one.get("area", width * height)), tuple(outlines))
