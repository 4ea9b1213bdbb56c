"""What an image really shows: its objects, and where they are visible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from capscope.data.annotations import INSTANCES_FILE, Dataset
from capscope.data.entities import read_instances
from capscope.data.naming import ObjectWords, coco_words, flickr30k_words
from capscope.data.scenes.recipe import Recipe
from capscope.data.scenes.write import read_recipes
from capscope.errors import CapscopeError
from capscope.explain.words import Word, scene_words


@dataclass(frozen=True)
class DepictedObject:
    """One object of an image; an attribute that is not annotated is None."""

    label: str
    """Class or category."""
    colour: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Depiction:
    """The K objects of an image.

    Attributes
    ----------
    image_id : int
    objects : tuple of DepictedObject
    masks : Tensor (K, H, W) bool
        Where each object is visible (boxes: where it may be), in the frame that captioners see.
    recipe : Recipe or None
        How to draw the image again; scenes only.
    """

    image_id: int
    objects: tuple[DepictedObject, ...]
    masks: Tensor
    recipe: Recipe | None = None

    def meant(self, word: Word) -> Tensor:
        """Return which objects (K,) bool a word is truly about: none if it is false."""
        return torch.tensor(
            [
                thing.label in word.about
                and word.colour in (None, thing.colour)
                and word.size in (None, thing.size)
                for thing in self.objects
            ],
            dtype=torch.bool,
        )


WordReader = Callable[[Sequence[str]], list[Word]]
"""Finds the words of a caption that are about something depicted."""


def scene_depictions(data_dir: Path, dataset: Dataset, ids: Iterable[int]) -> dict[int, Depiction]:
    """Return what drawn scenes show, from their recipes and mask images."""
    recipes = read_recipes(data_dir)
    found = {}
    for image_id in ids:
        file = dataset.by_id(image_id).file.replace("images/", "masks/", 1)
        recipe = recipes[image_id]
        with Pillow.open(data_dir / file) as image:
            indices = torch.from_numpy(np.array(image)).long()
        numbers = torch.arange(1, len(recipe.objects) + 1).view(-1, 1, 1)
        objects = tuple(
            DepictedObject(thing.name, thing.colour, thing.size) for thing in recipe.objects
        )
        found[image_id] = Depiction(image_id, objects, indices == numbers, recipe)
    return found


def box_depictions(path: Path, ids: Iterable[int], size: int) -> dict[int, Depiction]:
    """Return what photographs show, from COCO boxes; masks are filled boxes of `size` pixels."""
    instances = read_instances(path)
    found = {}
    for image_id in ids:
        boxes = instances.objects(image_id)
        masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
        for mask, thing in zip(masks, boxes, strict=True):
            picture = instances.pictures[image_id]
            x, y, width, height = thing.box
            left, right = (round(size * edge / picture.width) for edge in (x, x + width))
            top, bottom = (round(size * edge / picture.height) for edge in (y, y + height))
            mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        objects = tuple(DepictedObject(thing.category) for thing in boxes)
        found[image_id] = Depiction(image_id, objects, masks)
    return found


def open_depictions(
    data_dir: Path, dataset: Dataset, ids: Iterable[int], size: int
) -> tuple[dict[int, Depiction], WordReader]:
    """Return what the images show and the reader of words that fits: masks if drawn, else boxes."""
    if is_drawn(data_dir):
        return scene_depictions(data_dir, dataset, ids), scene_words
    path = data_dir / INSTANCES_FILE
    if not path.exists():
        raise CapscopeError(
            f"{data_dir} holds neither masks nor boxes, so nobody knows where words belong: "
            "leave the ground-truth benchmark out, or set dataset.karpathy.instances"
        )
    found = box_depictions(path, ids, size)
    categories = {thing.label for one in found.values() for thing in one.objects}
    return found, _category_reader(categories)


def word_reader(data_dir: Path) -> WordReader:
    """Return what finds the object words of a data set: of scenes, of its boxes, or of COCO."""
    if is_drawn(data_dir):
        return scene_words
    path = data_dir / INSTANCES_FILE
    categories = read_instances(path).categories.values() if path.exists() else ()
    return _category_reader(set(categories))


def places_known(data_dir: Path) -> bool:
    """Return whether a data set says where objects are: by masks, or by boxes."""
    return is_drawn(data_dir) or (data_dir / INSTANCES_FILE).exists()


def is_drawn(data_dir: Path) -> bool:
    """Return whether a data set was drawn, so that all that its images show is known."""
    return (data_dir / "scenes.json").exists()


def _category_reader(categories: set[str]) -> WordReader:
    """Return what finds categories by the synonyms that are known, or by their names."""
    for known in (coco_words(), flickr30k_words()):
        if categories <= known.classes:
            return partial(category_words, known)
    return partial(category_words, ObjectWords({name: name for name in categories}))


def category_words(known: ObjectWords, words: Sequence[str]) -> list[Word]:
    """Return the words of a caption that name a category of boxes."""
    return [Word(position, "noun", (name,)) for position, name in known.mentions(words)]
