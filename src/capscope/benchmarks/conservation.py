"""Conservation: how much of a word's relevance arrives, and where.

Rules with biases and stabilisers do not conserve relevance exactly; how far they are off belongs
beside every map. It is no proof of accuracy: rounding can move relevance without losing any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from capscope.benchmarks.context import Context
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.explain.store import RelevanceStore


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_conservation`."""
    return measure_conservation(context.stores, **context.bootstrap)


def measure_conservation(
    stores: Sequence[RelevanceStore], *, resamples: int, seed: int
) -> list[Measurement]:
    """Summarise where relevance went, for explainers that keep account of it.

    Returns
    -------
    list of Measurement
        Word kind ``all``. ``error`` at the grid is sum |start - grid - words| / sum |start| over
        words; at the pixels, sum |network - pixels| / sum |network|. ``image share`` is
        sum |grid| / sum (|grid| + |words|). Places are those of
        `capscope.explain.explanation.Explanation.conservation`.
    """
    scores = Scores()
    for store in tqdm(stores, desc="conservation", unit="store"):
        for stored in (store[row] for row in range(len(store))):
            for resolution, measure, parts, wholes in _account(stored.conservation):
                key = Key(store.explainer, resolution, "all", store.split, measure)
                for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True):
                    scores.add(key, stored.image_id, part, whole)
    return scores.measurements(resamples, seed)


def _account(places: dict[str, Tensor]) -> list[tuple[str, str, Tensor, Tensor]]:
    """Return resolution, measure, parts (T,) and wholes (T,) of one caption."""
    found = []
    if "start" in places:
        start, grid = places["start"], places["grid"]
        words = places.get("words", torch.zeros_like(grid))
        found.append(("grid", "error", (start - grid - words).abs(), start.abs()))
        if "words" in places:
            found.append(("grid", "image share", grid.abs(), grid.abs() + words.abs()))
    if "pixels" in places:
        entered, arrived = places["network"], places["pixels"]
        found.append(("pixels", "error", (entered - arrived).abs(), entered.abs()))
    return found
