"""Painting a recipe: the picture, and which object every pixel shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capscope.data.scenes import animals, things, vehicles
from capscope.data.scenes.backgrounds import Picture, over, paint_background
from capscope.data.scenes.lexicon import COLOURS
from capscope.data.scenes.pen import Pen
from capscope.data.scenes.recipe import Recipe, SceneObject

PAINTERS = {
    painter.__name__: painter
    for painter in (
        animals.dog, animals.cat, animals.rabbit, animals.bird, animals.horse, animals.turtle,
        vehicles.car, vehicles.bus, vehicles.bicycle, vehicles.boat,
        things.chair, things.table, things.lamp, things.ball, things.balloon,
        things.kite, things.umbrella, things.tree, things.flower, things.mushroom,
    )
}  # fmt: skip

_DROPS = np.array((214, 224, 236), np.float32)
_LIGHT = {"day": (1.0, 1.0, 1.0), "evening": (1.0, 0.93, 0.87), "night": (0.78, 0.8, 0.93)}


def render(recipe: Recipe, without: int | None = None) -> NDArray[np.uint8]:
    """Return the scene as (S, S, 3) uint8 RGB.

    Parameters
    ----------
    recipe : Recipe
    without : int, optional
        Index of an object to leave out, its shadow included; everything else stays as it is.
    """
    return paint(recipe, without)[0]


def visible_mask(recipe: Recipe) -> NDArray[np.uint8]:
    """Return (S, S) uint8: 1 + index of the object that a pixel shows, 0 for background."""
    return paint(recipe)[1]


def paint(
    recipe: Recipe, without: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return picture and visible mask, as `render` and `visible_mask` do.

    A pixel belongs to the front-most object that covers at least half of it.
    """
    picture = paint_background(recipe)
    mask = np.zeros((recipe.size, recipe.size), np.uint8)
    for index, thing in enumerate(recipe.objects):
        if index == without:
            continue
        colour, alpha = _icon(thing, recipe)
        y, x = (
            slice(thing.top, thing.top + thing.height),
            slice(thing.left, thing.left + thing.width),
        )
        if not thing.air:
            _shadow(picture, thing, recipe)
        region = picture[y, x]
        over(region, colour, alpha)
        mask[y, x][alpha >= 0.5] = index + 1
    _precipitation(picture, recipe)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), mask


def _icon(thing: SceneObject, recipe: Recipe) -> tuple[Picture, NDArray[np.float32]]:
    """Return the object's colours (h, w, 3), lit and textured, and its cover (h, w)."""
    red, green, blue = (
        min(255, max(0, channel + thing.shade)) for channel in COLOURS[thing.colour][0]
    )
    pen = Pen(thing.width, thing.height, (red, green, blue))
    PAINTERS[thing.name](pen, thing.style)
    layer = pen.layer()
    if thing.flip:
        layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(layer, np.float32)
    down = np.linspace(0, 1, thing.height, dtype=np.float32)[:, None]
    across = np.linspace(0, 1, thing.width, dtype=np.float32)[None]
    rng = np.random.default_rng(recipe.seed + thing.x)
    grain = rng.standard_normal((thing.height, thing.width), np.float32)
    light = 1.08 - 0.17 * down - 0.05 * across + 0.022 * grain
    colours: Picture = pixels[..., :3] * light[..., None]
    colours *= np.asarray(_LIGHT[recipe.time], np.float32)
    if recipe.weather == "fog":
        colours = colours * 0.84 + 34
    return np.clip(colours, 0, 255), pixels[..., 3] / np.float32(255)


def _shadow(picture: Picture, thing: SceneObject, recipe: Recipe) -> None:
    """Darken the ground below an object."""
    wide, high = thing.width * 0.54, max(2.0, thing.height * 0.1)
    y0, y1 = round(thing.y - high), min(recipe.size, round(thing.y + high) + 1)
    x0, x1 = max(0, round(thing.x - wide)), min(recipe.size, round(thing.x + wide) + 1)
    rows = (np.arange(y0, y1)[:, None] - thing.y + 1) / high
    columns = (np.arange(x0, x1)[None] - thing.x) / wide
    strength = 0.26 if recipe.weather in ("fog", "cloudy", "rain") else 0.42
    alpha = np.clip(1 - rows**2 - columns**2, 0, 0.6) / 0.6 * strength
    over(picture[y0:y1, x0:x1], (18, 18, 34), alpha.astype(np.float32))


def _precipitation(picture: Picture, recipe: Recipe) -> None:
    """Let it rain or snow in front of everything."""
    rng = np.random.default_rng(recipe.seed + 1)
    size = recipe.size
    if recipe.weather == "rain":
        starts = rng.integers(0, size, (70, 2))
        for k in range(7):
            rows, columns = (starts[:, 0] + k) % size, (starts[:, 1] - k // 3) % size
            picture[rows, columns] += (_DROPS - picture[rows, columns]) * 0.42
    elif recipe.weather == "snowfall":
        rows, columns = rng.integers(0, size - 1, (2, 90))
        near = rng.random(90) < 0.4
        picture[rows, columns] += (255 - picture[rows, columns]) * 0.9
        for down, across in ((0, 1), (1, 0), (1, 1)):
            y, x = rows[near] + down, columns[near] + across
            picture[y, x] += (255 - picture[y, x]) * 0.8
