"""Backgrounds: skies, grounds and walls with texture, for every place, time and weather."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capscope.data.scenes.recipe import HORIZON, Recipe

Picture = NDArray[np.float32]
"""(S, S, 3) RGB in [0, 255]."""
Field = NDArray[np.float32]
"""(S, S) of any range."""
Ground = tuple[Picture, Field]
"""The ground with all that stands on it for good, and how much of each pixel it covers."""

_SKIES = {
    "day": ((92, 160, 230), (206, 232, 250)),
    "evening": ((96, 84, 156), (255, 172, 110)),
    "night": ((14, 18, 48), (44, 52, 98)),
}
_GREY_SKIES = {
    "day": ((142, 152, 166), (206, 212, 218)),
    "evening": ((104, 92, 120), (206, 156, 140)),
    "night": ((20, 22, 38), (48, 52, 70)),
}
_TINTS = {"day": (1.0, 1.0, 1.0), "evening": (1.0, 0.88, 0.78), "night": (0.5, 0.54, 0.74)}


def _rgb(colour: tuple[float, ...]) -> NDArray[np.float32]:
    return np.asarray(colour, np.float32)


def noise(rng: np.random.Generator, size: int, cells: tuple[int, int]) -> Field:
    """Return smooth noise of mean 0 and range about [-1, 1]; `cells` = rows and columns."""
    coarse = rng.uniform(-1, 1, cells).astype(np.float32)
    image = Image.fromarray(coarse, "F").resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def gradient(top: tuple[int, ...], bottom: tuple[int, ...], share: Field) -> Picture:
    """Return colours between `top` and `bottom` by `share` in [0, 1]."""
    first, second = _rgb(top), _rgb(bottom)
    mixed: Picture = first + (second - first) * share[..., None]
    return mixed


def over(picture: Picture, colour: tuple[int, ...] | Picture, alpha: Field) -> None:
    """Lay `colour` over `picture` in place; `alpha` in [0, 1]."""
    picture += (np.asarray(colour, np.float32) - picture) * alpha[..., None]


def paint_background(recipe: Recipe) -> Picture:
    """Return the background of a scene as (S, S, 3) float32 RGB."""
    rng = np.random.default_rng(recipe.seed)
    size = recipe.size
    rows, columns = (np.mgrid[0:size, 0:size] / size).astype(np.float32)
    horizon = HORIZON[recipe.place]
    if recipe.weather is None:
        picture, _ = _PLACES[recipe.place](rng, rows, columns, horizon)
        _window(picture, rng, recipe)
        tints = {"day": (1.0, 1.0, 1.0), "evening": (1.0, 0.9, 0.78), "night": (0.72, 0.7, 0.82)}
        picture *= _rgb(tints[recipe.time])
        return picture
    grey = recipe.weather != "clear"
    sky = _sky(rng, rows, columns, recipe, horizon)
    ground, cover = _PLACES[recipe.place](rng, rows, columns, horizon)
    tint = _rgb(_TINTS[recipe.time]) * (0.9 if grey else 1.0)
    over(sky, ground * tint, cover)
    if recipe.weather == "fog":
        mist = np.clip(0.85 - np.abs(rows - horizon) * 1.6, 0.12, 0.8)
        colour = {"day": (222, 226, 230), "evening": (222, 190, 176), "night": (86, 90, 108)}
        over(sky, colour[recipe.time], mist * (1 + 0.2 * noise(rng, size, (3, 3))))
    return sky


def _sky(
    rng: np.random.Generator, rows: Field, columns: Field, recipe: Recipe, horizon: float
) -> Picture:
    size = recipe.size
    skies = _SKIES if recipe.weather == "clear" else _GREY_SKIES
    picture = gradient(*skies[recipe.time], np.clip(rows / horizon, 0, 1))
    if recipe.time == "night" and recipe.weather == "clear":
        for _ in range(26):
            row, column = int(rng.random() * horizon * size), int(rng.random() * size)
            picture[row, column] = rng.uniform(170, 255)
    if recipe.weather == "clear":
        height = 0.28 if recipe.time == "evening" else 0.12
        x, y = rng.uniform(0.12, 0.88), height + rng.uniform(-0.03, 0.03)
        away = np.hypot(columns - x, rows - y)
        glow, disc = {
            "day": ((255, 250, 214), (255, 244, 170)),
            "evening": ((255, 206, 140), (255, 226, 150)),
            "night": ((120, 128, 170), (246, 244, 224)),
        }[recipe.time]
        over(picture, glow, np.clip(0.55 - away * 2.2, 0, 1))
        over(picture, disc, np.clip((0.062 - away) * size, 0, 1))
    cover = {"clear": 0.25, "cloudy": 0.95}.get(recipe.weather or "", 0.6)
    cloud = (
        noise(rng, size, (7, 5))
        + 0.5 * noise(rng, size, (14, 10))
        + 0.25 * noise(rng, size, (28, 20))
    )
    white = {"day": (250, 250, 252), "evening": (250, 196, 176), "night": (70, 74, 104)}
    over(
        picture,
        white[recipe.time],
        np.clip(cloud * 1.5 - 0.9 + cover, 0, 0.9) * np.clip((horizon - rows) * 8, 0, 1),
    )
    return picture


def _ground(rows: Field, edge: Field) -> Field:
    """Return the depth of the ground: 0 at its edge, 1 at the lower border, negative above."""
    depth: Field = (rows - edge) / (1 - edge)
    return depth


def _beach(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    depth = _ground(rows, np.full_like(rows, horizon))
    picture = gradient((38, 120, 178), (84, 190, 206), np.clip(depth * 4, 0, 1))
    waves: Field = np.sin((depth * 90 + 3 * noise(rng, size, (4, 6))) * (1.2 - depth))
    over(picture, (230, 246, 250), np.clip(waves - 0.75, 0, 0.25) * 1.6)
    shore: Field = (
        0.2 + 0.03 * np.sin(columns * 7 + rng.uniform(0, 6)) + 0.015 * noise(rng, size, (2, 9))
    )
    sand = gradient((226, 196, 140), (244, 220, 168), np.clip(depth * 1.3, 0, 1))
    sand *= (1 + 0.05 * noise(rng, size, (40, 40)) + 0.04 * noise(rng, size, (10, 5)))[..., None]
    over(picture, (252, 252, 250), np.clip(1 - np.abs(depth - shore) * 34, 0, 1))
    wet = np.clip(1 - np.abs(depth - shore - 0.05) * 22, 0, 0.8)
    over(picture, (196, 164, 116), wet)
    over(picture, sand, np.clip((depth - shore - 0.02) * 40, 0, 1))
    return picture, (depth >= 0).astype(np.float32)


def _meadow(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    phase = rng.uniform(0, 6, 3)
    far = (
        horizon
        - 0.07
        - 0.035 * np.sin(columns * 5 + phase[0])
        - 0.02 * np.sin(columns * 11 + phase[1])
    )
    near = horizon + 0.02 * np.sin(columns * 4 + phase[2])
    picture = gradient((110, 168, 110), (134, 190, 110), np.clip(_ground(rows, far) * 6, 0, 1))
    depth = _ground(rows, near)
    grass = gradient((126, 190, 88), (84, 158, 62), np.clip(depth, 0, 1))
    blades = noise(rng, size, (24, 64)) + 0.6 * noise(rng, size, (64, 128))
    grass *= (1 + 0.075 * blades * (0.4 + np.clip(depth, 0, 1)))[..., None]
    over(grass, (206, 220, 120), np.clip(noise(rng, size, (6, 3)) - 0.3, 0, 0.35))
    over(picture, grass, np.clip((rows - near) * size, 0, 1))
    return picture, np.clip((rows - far) * size + 0.5, 0, 1)


def _street(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    picture = np.zeros((size, size, 3), np.float32)
    cover = np.zeros((size, size), np.float32)
    x = 0
    while x < size:
        width = int(rng.integers(size // 8, size // 4))
        top = int(size * rng.uniform(0.1, horizon - 0.12))
        base = _rgb(
            ((172, 128, 108), (146, 154, 168), (190, 174, 146), (128, 140, 150))[
                int(rng.integers(4))
            ]
        )
        bottom = int(horizon * size)
        picture[top:bottom, x : x + width] = base * rng.uniform(0.85, 1.05)
        cover[top:, x : x + width] = 1
        picture[top : top + 2, x : x + width] = base * 0.7
        glass = _rgb((210, 224, 232)) if rng.random() < 0.6 else _rgb((88, 104, 124))
        for row in range(top + 5, bottom - 5, 9):
            for column in range(x + 3, min(x + width, size) - 5, 8):
                picture[row : row + 5, column : column + 4] = glass
        x += width
    depth = _ground(rows, np.full_like(rows, horizon))
    pavement = gradient((178, 176, 172), (196, 192, 186), np.clip(depth * 4, 0, 1))
    pavement[np.abs((columns - 0.5) / (0.4 + np.abs(depth)) * 9 % 1) < 0.06] *= 0.9
    road = gradient((94, 96, 104), (112, 114, 120), depth)
    road *= (1 + 0.06 * noise(rng, size, (60, 60)) + 0.04 * noise(rng, size, (6, 4)))[..., None]
    over(pavement, (140, 138, 136), np.clip(1 - np.abs(depth - 0.2) * 60, 0, 1))
    over(pavement, road, np.clip((depth - 0.2) * size, 0, 1))
    dashes = (np.abs(depth - 0.62) < 0.022) & (((columns + rng.uniform(0, 1)) * 4 % 1) < 0.55)
    pavement[dashes] = (236, 232, 214)
    below = depth >= 0
    picture[below] = pavement[below]
    return picture, np.maximum(cover, below)


def _indoors(
    rng: np.random.Generator, rows: Field, horizon: float, wall: Picture, floor: Picture
) -> Ground:
    depth = _ground(rows, np.full_like(rows, horizon))
    picture = wall
    picture *= (1 - 0.1 * np.abs(rows - 0.2))[..., None]
    below = depth >= 0
    picture[below] = floor[below]
    over(picture, (244, 240, 232), np.clip(1 - np.abs(depth + 0.055) * 22, 0, 1) ** 0.3)
    over(picture, (60, 44, 40), np.clip(0.3 - np.clip(depth, 0, 1) * 6, 0, 0.3) * below)
    return picture, np.ones_like(rows)


def _room(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    base = ((188, 208, 214), (222, 204, 180), (206, 214, 190), (216, 190, 190))[
        int(rng.integers(4))
    ]
    stripes = (columns * 16 % 1 < 0.5).astype(np.float32)
    wall = gradient(base, tuple(round(c * 0.94) for c in base), stripes)
    depth = _ground(rows, np.full_like(rows, horizon))
    boards = np.floor((columns - 0.5) / (0.5 + 0.5 * np.clip(depth, 0, 1)) * 10)
    tone = 0.92 + 0.12 * ((boards * 7919) % 5) / 5
    floor = gradient((170, 122, 80), (190, 140, 94), np.clip(depth, 0, 1)) * tone[..., None]
    floor *= (1 + 0.05 * noise(rng, size, (70, 9)))[..., None]
    rug = ((150, 60, 66), (64, 92, 128), (96, 116, 84))[int(rng.integers(3))]
    away = np.hypot((columns - rng.uniform(0.3, 0.7)) / 0.42, (depth - 0.55) / 0.34)
    over(floor, rug, np.clip((1 - away) * 40, 0, 0.85))
    over(floor, (232, 214, 180), np.clip(1 - np.abs(away - 0.86) * 26, 0, 0.8))
    return _indoors(rng, rows, horizon, wall, floor)


def _kitchen(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    base = ((214, 232, 228), (240, 232, 212), (220, 226, 240))[int(rng.integers(3))]
    joints = (columns * 12 % 1 < 0.08) | (rows * 12 % 1 < 0.08)
    wall = gradient(base, tuple(round(c * 0.86) for c in base), joints.astype(np.float32))
    depth = _ground(rows, np.full_like(rows, horizon))
    nearness = 0.45 + 0.55 * np.clip(depth, 0, 1)
    squares = np.floor((columns - 0.5) / nearness * 7) + np.floor(np.log(nearness) * 9)
    dark = ((110, 138, 150), (176, 120, 96), (120, 120, 128))[int(rng.integers(3))]
    floor = gradient((232, 228, 220), dark, (squares % 2).astype(np.float32) * 0.75)
    floor *= (1 + 0.03 * noise(rng, size, (30, 30)))[..., None]
    return _indoors(rng, rows, horizon, wall, floor)


def _snow(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    ridge = np.abs(((columns * 2.4 + rng.uniform(0, 1)) % 1) - 0.5) + 0.5 * np.abs(
        ((columns * 5.3 + rng.uniform(0, 1)) % 1) - 0.5
    )
    far = horizon - 0.24 + 0.26 * ridge
    picture = gradient((236, 242, 250), (128, 146, 176), np.clip(_ground(rows, far) * 5, 0, 1))
    near = horizon + 0.02 * np.sin(columns * 5 + rng.uniform(0, 6))
    depth = _ground(rows, near)
    snow = gradient((214, 226, 240), (244, 248, 252), np.clip(depth * 1.4, 0, 1))
    drift = np.sin(depth * 16 + 4 * noise(rng, size, (3, 3)))
    snow *= (1 + 0.025 * drift + 0.012 * noise(rng, size, (50, 50)))[..., None]
    over(picture, snow, np.clip((rows - near) * size, 0, 1))
    return picture, np.clip((rows - far) * size + 0.5, 0, 1)


def _desert(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    phase = rng.uniform(0, 6, 2)
    far = horizon - 0.05 - 0.05 * np.sin(columns * 4 + phase[0])
    picture = gradient((222, 168, 104), (206, 148, 88), np.clip(_ground(rows, far) * 5, 0, 1))
    near = horizon + 0.03 + 0.04 * np.sin(columns * 3 + phase[1])
    depth = _ground(rows, near)
    sand = gradient((238, 190, 118), (222, 164, 92), np.clip(depth, 0, 1))
    ripples = np.sin(depth * 46 + columns * 9 + 4 * noise(rng, size, (4, 4)))
    sand *= (1 + 0.04 * ripples + 0.02 * noise(rng, size, (60, 60)))[..., None]
    over(picture, sand, np.clip((rows - near) * size, 0, 1))
    return picture, np.clip((rows - far) * size + 0.5, 0, 1)


def _lake(rng: np.random.Generator, rows: Field, columns: Field, horizon: float) -> Ground:
    size = len(rows)
    far = horizon - 0.05 - 0.03 * np.sin(columns * 6 + rng.uniform(0, 6))
    picture = gradient((74, 120, 92), (96, 140, 90), np.clip(_ground(rows, far) * 10, 0, 1))
    depth = _ground(rows, np.full_like(rows, horizon))
    water = gradient((120, 178, 210), (44, 116, 172), np.clip(depth, 0, 1))
    waves = np.sin(depth * 70 * (1.15 - 0.6 * depth) + 5 * noise(rng, size, (5, 8)))
    water *= (1 + 0.05 * waves + 0.04 * noise(rng, size, (40, 14)))[..., None]
    over(water, (226, 242, 250), np.clip(waves * noise(rng, size, (20, 8)) - 0.45, 0, 0.5))
    over(picture, water, np.clip((rows - horizon) * size, 0, 1))
    return picture, np.clip((rows - far) * size + 0.5, 0, 1)


def _window(picture: Picture, rng: np.random.Generator, recipe: Recipe) -> None:
    """Hang a window on the wall; it shows the time of day."""
    size = recipe.size
    x, y = int(size * rng.uniform(0.08, 0.62)), int(size * 0.07)
    width, height = int(size * 0.28), int(size * 0.27)
    boost = {"day": 1.0, "evening": 1.1, "night": 1.3}[recipe.time]
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None].repeat(width, 1)
    pane = gradient(*_SKIES[recipe.time], share) * boost
    picture[y - 3 : y + height + 3, x - 3 : x + width + 3] = (250, 248, 244)
    picture[y : y + height, x : x + width] = pane
    picture[y + height // 2 - 1 : y + height // 2 + 1, x : x + width] = (250, 248, 244)
    picture[y : y + height, x + width // 2 - 1 : x + width // 2 + 1] = (250, 248, 244)
    picture[y + height + 3 : y + height + 6, x - 5 : x + width + 5] = (214, 206, 196)


_PLACES: dict[str, Callable[[np.random.Generator, Field, Field, float], Ground]] = {
    "beach": _beach,
    "meadow": _meadow,
    "street": _street,
    "room": _room,
    "kitchen": _kitchen,
    "snow": _snow,
    "desert": _desert,
    "lake": _lake,
}
