"""Objects with boxes (COCO instances), and the published entity file made from them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from capscope.errors import CapscopeError
from capscope.files import read_json


@dataclass(frozen=True)
class ObjectBox:
    """One object of an image."""

    id: int
    category: str
    box: tuple[float, float, float, float]
    """x, y, width, height in pixels of the annotated image."""
    area: float
    """Pixels of the mask, or of the box where there is no mask."""
    mask: Any = None
    """Polygons or run-length code as in COCO, or None."""
    crowd: bool = False
    scene_object: int | None = None
    """Index of the object in its scene's recipe (scenes only)."""


class Picture(NamedTuple):
    """The file that boxes refer to."""

    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class Instances:
    """Objects of many images."""

    categories: dict[int, str]
    pictures: dict[int, Picture]
    by_image: dict[int, tuple[ObjectBox, ...]]

    def objects(self, image_id: int) -> tuple[ObjectBox, ...]:
        """Return the objects of an image in file order; none for an image without boxes."""
        return self.by_image.get(image_id, ())


def read_instances(path: Path) -> Instances:
    """Read COCO instances JSON; errors name the file and the annotation."""
    return parse_instances(read_json(path), str(path))


def parse_instances(loaded: Any, where: str) -> Instances:
    """Check and index a loaded COCO instances JSON; `where` names it in errors."""
    lists = {key: _list_of_objects(loaded, key, where) for key in COCO_KEYS}
    try:
        categories = {entry["id"]: str(entry["name"]) for entry in lists["categories"]}
        pictures = {
            entry["id"]: Picture(str(entry["file_name"]), int(entry["width"]), int(entry["height"]))
            for entry in lists["images"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CapscopeError(f"{where}: images or categories lack {error}") from error
    found: dict[int, list[ObjectBox]] = {}
    seen: set[int] = set()
    for entry in lists["annotations"]:
        image_id, one = _object(entry, categories, where)
        if one.id in seen:
            raise CapscopeError(f"{where}: annotation id {one.id} occurs twice")
        if image_id not in pictures:
            raise CapscopeError(f"{where}: annotation {one.id} is of unknown image {image_id}")
        seen.add(one.id)
        found.setdefault(image_id, []).append(one)
    by_image = {image_id: tuple(objects) for image_id, objects in found.items()}
    return Instances(categories, pictures, by_image)


COCO_KEYS = ("images", "categories", "annotations")


def instances_of(loaded: Mapping[str, Any], image_ids: Collection[int]) -> dict[str, Any]:
    """Return the part of a COCO instances JSON that concerns some images."""
    return {
        "images": [entry for entry in loaded["images"] if entry["id"] in image_ids],
        "categories": loaded["categories"],
        "annotations": [one for one in loaded["annotations"] if one["image_id"] in image_ids],
    }


def coco_entities(instances: Instances) -> dict[str, Any]:
    """Return the published ``COCOvalEntities.json``: per file the boxes of each category.

    Boxes become corners [xmin, ymin, xmax, ymax] in pixels of the annotated image; crowds are
    included; images without a box are absent. ``resize_ratio`` leads to the network's square of
    224 pixels.
    """
    ids = {name: str(category_id) for category_id, name in instances.categories.items()}
    entities: dict[str, Any] = {}
    for image_id, objects in instances.by_image.items():
        picture = instances.pictures[image_id]
        boxes: dict[str, list[list[float]]] = {}
        for one in objects:
            x, y, width, height = one.box
            boxes.setdefault(ids[one.category], []).append([x, y, x + width, y + height])
        entities[picture.file_name] = {
            "categories": {one.category: ids[one.category] for one in objects},
            "bbox": boxes,
            "shape": [picture.width, picture.height],
            "resize_ratio": [224 / picture.width, 224 / picture.height],
        }
    return entities


def _list_of_objects(loaded: Any, key: str, where: str) -> list[dict[str, Any]]:
    found = loaded.get(key) if isinstance(loaded, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise CapscopeError(f"{where} is not COCO instances JSON: no list of objects '{key}'")
    return found


def _object(
    entry: Mapping[str, Any], categories: Mapping[int, str], where: str
) -> tuple[int, ObjectBox]:
    try:
        x, y, width, height = (float(value) for value in entry["bbox"])
        one = ObjectBox(
            id=int(entry["id"]),
            category=categories[entry["category_id"]],
            box=(x, y, width, height),
            area=float(entry.get("area", width * height)),
            mask=entry.get("segmentation"),
            crowd=bool(entry.get("iscrowd", 0)),
            scene_object=entry.get("scene_object"),
        )
        image_id = int(entry["image_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise CapscopeError(
            f"{where}: annotation {entry.get('id')} is malformed ({type(error).__name__}: {error})"
        ) from error
    if not all(math.isfinite(value) for value in one.box) or width < 0 or height < 0:
        raise CapscopeError(f"{where}: annotation {one.id} has the impossible box {one.box}")
    return image_id, one
