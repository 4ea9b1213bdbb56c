"""What the small detector is told in training: boxes, classes and colours of a split of scenes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from capscope.data.annotations import Dataset
from capscope.data.entities import Instances
from capscope.data.scenes import Recipe
from capscope.data.scenes.lexicon import CLASSES, COLOURS
from capscope.features.detector.small import cell_centres, shifts
from capscope.features.supervision import IMAGE_LABELS

CLASS_NAMES, ATTRIBUTE_NAMES = tuple(CLASSES), tuple(COLOURS)
CENTRAL = 0.6
"""Share of an object's width and height, about its centre, whose cells are told of it."""
MATCH = 0.5
"""IoU from which a box is told to be of an object."""


class Truth(NamedTuple):
    """The n objects of one image.

    Attributes
    ----------
    boxes : Tensor (n, 4)
        Of what is visible, in [0, 1].
    classes, attributes : Tensor (n,)
        Places in `CLASS_NAMES` and `ATTRIBUTE_NAMES`.
    whole : Tensor (K,)
        Place, time and weather, 0 or 1.
    """

    boxes: Tensor
    classes: Tensor
    attributes: Tensor
    whole: Tensor


class Told(NamedTuple):
    """What n boxes of one image are.

    Attributes
    ----------
    classes, attributes : Tensor (n,)
        The number of names stands for the background, or no attribute.
    shift : Tensor (n, 4)
        From each box to the object that it overlaps most.
    """

    classes: Tensor
    attributes: Tensor
    shift: Tensor


def read_truth(
    dataset: Dataset, instances: Instances, recipes: Mapping[int, Recipe], split: str
) -> list[Truth]:
    """Return the objects of each image of a split of scenes, in its order."""
    found = []
    for image in dataset.split(split):
        recipe = recipes[image.id]
        things = instances.objects(image.id)
        boxes = torch.tensor([thing.box for thing in things], dtype=torch.float32)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) / recipe.size
        numbers = [thing.scene_object for thing in things]
        drawn = [recipe.objects[number] for number in numbers if number is not None]
        whole = [float(n in (recipe.place, recipe.time, recipe.weather)) for n in IMAGE_LABELS]
        found.append(
            Truth(
                boxes,
                torch.tensor([CLASS_NAMES.index(one.name) for one in drawn]),
                torch.tensor([ATTRIBUTE_NAMES.index(one.colour) for one in drawn]),
                torch.tensor(whole),
            )
        )
    return found


def cell_targets(truth: Truth, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the class (h*w,) of each cell, -1 where there is none, and its box (h*w, 4).

    A cell is told of the smallest object whose central part holds the cell's centre; where that
    part is smaller than a cell, of the object whose centre the cell holds.
    """
    centres = cell_centres(height, width)
    classes, boxes = torch.full((len(centres),), -1), torch.zeros(len(centres), 4)
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    reach = torch.maximum(sides * CENTRAL / 2, torch.tensor([0.5 / width, 0.5 / height]))
    for one in sides.prod(1).argsort(descending=True).tolist():
        middle = (truth.boxes[one, :2] + truth.boxes[one, 2:]) / 2
        near = ((centres - middle).abs() <= reach[one]).all(1)
        classes[near], boxes[near] = truth.classes[one], truth.boxes[one]
    return classes, boxes


def box_targets(truth: Truth, boxes: Tensor) -> Told:
    """Return what boxes (n, 4) are: an object that they overlap by `MATCH`, or background."""
    overlap, best = box_iou(boxes, truth.boxes).max(1)
    hit = overlap >= MATCH
    return Told(
        torch.where(hit, truth.classes[best], len(CLASS_NAMES)),
        torch.where(hit, truth.attributes[best], len(ATTRIBUTE_NAMES)),
        shifts(boxes, truth.boxes[best]),
    )


def shaken(truth: Truth, count: int, amount: float, rng: torch.Generator) -> Tensor:
    """Return boxes (count, 4) near the objects': corners moved by about `amount` of their sides."""
    which = torch.randint(len(truth.boxes), (count,), generator=rng)
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).repeat(1, 2)[which]
    moved = truth.boxes[which] + amount * torch.randn(count, 4, generator=rng) * sides
    corners = moved.clamp(0, 1).view(count, 2, 2)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)
