"""What the small grid network is told of scenes: the masks in cells, the recipe of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from capscope.data.annotations import Dataset
from capscope.data.images import map_ahead, read_image
from capscope.data.scenes import Recipe
from capscope.data.scenes.lexicon import CLASSES, COLOURS, PLACES, TIMES, WEATHER

CELL_LABELS = ("background", *CLASSES), ("background", *COLOURS)
"""What each head tells the cells apart by."""
IMAGE_LABELS = (*PLACES, *TIMES, *WEATHER)


class Examples(NamedTuple):
    """Images and labels of one split.

    Attributes
    ----------
    images : Tensor (M, 3, S, S) uint8
    classes, colours : Tensor (M, L, h, w)
        Share of each cell that shows each of `CELL_LABELS`; they add up to 1.
    whole : Tensor (M, K)
        Place, time and weather, 0 or 1.
    """

    images: Tensor
    classes: Tensor
    colours: Tensor
    whole: Tensor


def read_examples(
    dataset: Dataset, recipes: Mapping[int, Recipe], split: str, blocks: int
) -> Examples:
    """Read one split; cells are 2^blocks pixels wide."""
    images = dataset.split(split)
    masks = [dataset.root / "masks" / Path(image.file).relative_to("images") for image in images]
    paths = [*map(dataset.path, images), *masks]
    read = [
        np.asarray(picture)
        for picture in tqdm(
            map_ahead(read_image, paths, 2), total=len(paths), unit="file", desc=f"read {split}"
        )
    ]
    pictures = torch.from_numpy(np.stack(read[: len(images)])).permute(0, 3, 1, 2)
    shown = np.stack([mask[..., 0] for mask in read[len(images) :]])
    drawn = [recipes[image.id] for image in images]
    cells = [_cell_labels(r, m, 2**blocks) for r, m in zip(drawn, shown, strict=True)]
    classes, colours = (torch.from_numpy(np.stack(part)) for part in zip(*cells, strict=True))
    whole = [[float(name in (r.place, r.time, r.weather)) for name in IMAGE_LABELS] for r in drawn]
    return Examples(pictures, classes, colours, torch.tensor(whole))


def _cell_labels(
    recipe: Recipe, mask: np.ndarray[Any, np.dtype[np.uint8]], stride: int
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], ...]:
    """Return the share of each cell that shows each class, and each colour: (L, h, w)."""
    grid = len(mask) // stride
    blocks = mask[: grid * stride, : grid * stride].reshape(grid, stride, grid, stride)
    classes, colours = (np.zeros((len(names), grid, grid), np.float32) for names in CELL_LABELS)
    classes[0] = colours[0] = (blocks == 0).mean((1, 3))
    for index, thing in enumerate(recipe.objects):
        share = (blocks == index + 1).mean((1, 3))
        classes[CELL_LABELS[0].index(thing.name)] += share
        colours[CELL_LABELS[1].index(thing.colour)] += share
    return classes, colours
