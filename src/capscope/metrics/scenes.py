"""What only drawn scenes can tell: is the colour right, and is the object where the caption says.

Claims about objects that are not in the scene do not count here: they are hallucinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from capscope.data.scenes.parse import Claim, check_relation, claims, mentions
from capscope.data.scenes.recipe import Recipe
from capscope.metrics.statistics import Measure, ratio

_MIRROR = {"left": "right", "right": "left"}


def scene_measures(
    recipes: Sequence[Recipe], captions: Sequence[Sequence[str]]
) -> dict[str, Measure]:
    """Check colours and positions that captions claim.

    Parameters
    ----------
    recipes : sequence of Recipe
        The scene of each caption.
    captions : sequence of word sequences

    Returns
    -------
    dict of str to Measure
        ``colour_accuracy`` (of coloured mentions of objects in the scene),
        ``left_right_accuracy`` (of claims that one object is left or right of another, or on that
        side of the image; chance is that of the same claims with a coin thrown for the side),
        ``relation_accuracy`` (of all claims about positions).
    """
    rows = [_row(recipe, words) for recipe, words in zip(recipes, captions, strict=True)]
    columns = np.array(rows, np.float64).reshape(len(rows), 7).T
    colour, coloured, left_right, sideways, coin, relation, related = columns
    chance = float(coin.sum() / sideways.sum()) if sideways.sum() else None
    return {
        "colour_accuracy": ratio(colour, coloured),
        "left_right_accuracy": ratio(left_right, sideways, chance),
        "relation_accuracy": ratio(relation, related),
    }


def _row(recipe: Recipe, words: Sequence[str]) -> list[float]:
    colours: dict[str, set[str]] = {}
    for thing in recipe.objects:
        colours.setdefault(thing.name, set()).add(thing.colour)
    coloured = [m for m in mentions(words) if m.colour and m.name in colours]
    checked = [(claim, check_relation(recipe, claim)) for claim in claims(words)]
    known = [(claim, truth) for claim, truth in checked if truth is not None]
    sideways = [(claim, truth) for claim, truth in known if claim.relation in _MIRROR]
    coin = sum((truth + _mirrored(recipe, claim)) / 2 for claim, truth in sideways)
    return [
        sum(m.colour in colours[m.name] for m in coloured),
        len(coloured),
        sum(truth for _, truth in sideways),
        len(sideways),
        coin,
        sum(truth for _, truth in known),
        len(known),
    ]


def _mirrored(recipe: Recipe, claim: Claim) -> bool:
    return bool(check_relation(recipe, replace(claim, relation=_MIRROR[claim.relation])))
