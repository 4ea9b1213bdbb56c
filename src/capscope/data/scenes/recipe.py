"""Recipes: what a scene holds, drawn from a seed, before a pixel is painted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from capscope.data.scenes.lexicon import CLASSES, COLOURS, INDOORS, PLACES, SIZES

HORIZON = {
    "beach": 0.42, "meadow": 0.4, "street": 0.46, "room": 0.56,
    "kitchen": 0.54, "snow": 0.44, "desert": 0.42, "lake": 0.4,
}  # fmt: skip
"""Where the ground begins, relative to the height of the image."""

_COUNTS = ((1, 0.06), (2, 0.46), (3, 0.40), (4, 0.08))
_TIMES = (("day", 0.6), ("evening", 0.2), ("night", 0.2))
_WEATHER = (("clear", 0.44), ("cloudy", 0.24), ("rain", 0.16), ("fog", 0.16))
_SNOW_WEATHER = (("clear", 0.4), ("cloudy", 0.2), ("snowfall", 0.4))


@dataclass(frozen=True)
class SceneObject:
    """One object; positions and sizes in pixels.

    Attributes
    ----------
    name : str
        Its class, a key of `capscope.data.scenes.lexicon.CLASSES`.
    colour, size : str
        Keys of `COLOURS` and `SIZES`.
    x, y : int
        Centre and lower edge of its box.
    width, height : int
        Its box before occlusion.
    style : int
        Which of its two poses or models.
    flip : bool
        Whether it faces left.
    air : bool
        Whether it hangs or flies (no shadow on the ground).
    shade : int
        Small variation of the colour.
    """

    name: str
    colour: str
    size: str
    x: int
    y: int
    width: int
    height: int
    style: int
    flip: bool
    air: bool
    shade: int

    @property
    def left(self) -> int:
        """Left edge of the box."""
        return self.x - self.width // 2

    @property
    def top(self) -> int:
        """Upper edge of the box."""
        return self.y - self.height


@dataclass(frozen=True)
class Recipe:
    """One scene: place, time, weather and objects from back to front.

    `size` is the width and height of the image in pixels, `seed` that of its textures.
    """

    size: int
    place: str
    time: str
    weather: str | None
    seed: int
    objects: tuple[SceneObject, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Read the form that `to_json` returns."""
        objects = tuple(SceneObject(**entry) for entry in value["objects"])
        return cls(**{**value, "objects": objects})


def pick(rng: np.random.Generator, table: Sequence[tuple[Any, float]]) -> Any:
    """Draw one entry of a table of (value, probability)."""
    draw = rng.random() * sum(weight for _, weight in table)
    for value, weight in table:
        draw -= weight
        if draw < 0:
            return value
    return table[-1][0]


def choose_classes(rng: np.random.Generator, count: int, bias: float) -> list[str]:
    """Draw `count` different classes.

    The first is uniform. With probability `bias` its companion joins it; the others are uniform
    over the rest. A bias of 0 means that all are uniform and independent of one another.
    """
    names = list(CLASSES)
    chosen = [names[int(rng.integers(len(names)))]]
    companion = CLASSES[chosen[0]].companion
    if count > 1 and rng.random() < bias:
        chosen.append(companion)
    elif bias > 0:
        names.remove(companion)
    rest = [name for name in names if name not in chosen]
    chosen += [rest[int(i)] for i in rng.permutation(len(rest))[: count - len(chosen)]]
    return chosen


def sample_recipe(rng: np.random.Generator, size: int, bias: float) -> Recipe:
    """Draw one scene.

    Parameters
    ----------
    rng : numpy Generator
    size : int
        Pixels, width and height.
    bias : float
        Probability that the first object's companion joins it and that the place is one of its
        usual ones; 0 for the bias-free split.
    """
    classes = choose_classes(rng, pick(rng, _COUNTS), bias)
    usual = CLASSES[classes[0]].places if rng.random() < bias else tuple(PLACES)
    place = usual[int(rng.integers(len(usual)))]
    weather = None
    if place not in INDOORS:
        weather = pick(rng, _SNOW_WEATHER if place == "snow" else _WEATHER)
    time = pick(rng, _TIMES)
    objects = _arrange(rng, classes, size, place)
    return Recipe(size, place, time, weather, int(rng.integers(2**31)), tuple(objects))


def _arrange(
    rng: np.random.Generator, classes: Sequence[str], size: int, place: str
) -> list[SceneObject]:
    """Give every class a colour, a size and a position; back to front."""
    count = len(classes)
    slots = (np.arange(count) + 0.5) / count
    centres = slots + rng.uniform(-0.22, 0.22, count) / count
    if count > 1 and rng.random() < 0.35:  # a pair that stands close, one before the other
        first = int(rng.integers(count - 1))
        middle = centres[first : first + 2].mean()
        centres[first : first + 2] = middle + np.array([-0.5, 0.5]) * rng.uniform(0.14, 0.22)
    centres = rng.permutation(centres)
    shrink = 0.9 if count == 4 else 1.0
    objects = []
    for name, centre in zip(classes, centres, strict=True):
        entry = CLASSES[name]
        size_name = pick(rng, (("small", 0.25), ("medium", 0.45), ("large", 0.3)))
        air = bool(rng.random() < entry.air)
        style = int(rng.integers(2))
        if name == "bird":
            style = int(air)
        horizon = HORIZON[place]
        depth = float(rng.random())
        scale = SIZES[size_name][0] * size * shrink * float(rng.uniform(0.94, 1.06))
        width, height = (round(scale * share) for share in entry.stretch)
        if air:
            lower = float(rng.uniform(0.03, 0.16)) * size + height
        else:
            lower = (horizon + 0.14 + (0.95 - horizon - 0.14) * depth) * size
        half = width // 2
        x = min(max(round(float(centre) * size), half + 1), size - half - 2)
        y = min(max(round(lower), height + 1), size - 2)
        colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
        shade, flip = int(rng.integers(-12, 13)), bool(rng.random() < 0.5)
        objects.append(
            SceneObject(name, colour, size_name, x, y, width, height, style, flip, air, shade)
        )
    return sorted(objects, key=lambda thing: (not thing.air, thing.y, thing.x))
