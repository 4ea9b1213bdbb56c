"""Rules of the published evaluation of explanations (Sun et al. 2022) that no other code has.

They are here for parity: which words it takes for objects, what its random control draws, and how
it sums up. Benchmarks use them when they are asked for the published behaviour.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capscope.benchmarks.roc import auc
from capscope.data.wordlists import object_words, stop_words

STOP, OBJECT = "stop word", "object word"
EARLIEST_PATCHES = 1
"""The first word (from 0) for which patches are taken away."""
EARLIEST_WORDS = 6
"""The first word (from 0) for which preceding words are taken away."""
DELETED_WORDS = 3
QUANTILES = tuple(step / 100 for step in range(100))
"""Quantiles of a map that the published statistics hold."""
JUDGED_QUANTILES = 50
"""The published aggregation looks at the lower half."""


def word_forms(word: str) -> frozenset[str]:
    """Return a word and what may be its singular, by the published rule.

    It strips every trailing s, or every trailing e and s, or i, e and s before adding y: also
    "glasses" -> "gla" and "bus" -> "bu".
    """
    return frozenset((word, word.rstrip("s"), word.rstrip("es"), word.rstrip("ies") + "y"))


def kind_of(word: str) -> str | None:
    """Return whether the published evaluation takes a word for a stop word, an object or neither.

    A word that is both counts as a stop word.
    """
    if word in stop_words():
        return STOP
    return OBJECT if word_forms(word) & object_words() else None


class RandomControl(NamedTuple):
    """What the published random control draws for one caption."""

    maps: dict[int, Tensor]
    """Relevance (H, W) of pixels by word: a permutation of 0 .. H*W - 1."""
    deleted: dict[int, list[int]]
    """Positions of the deleted inputs by word."""


def random_control(words: Sequence[str], height: int, width: int, seed: int) -> RandomControl:
    """Draw as the published program does: Python's generator, word by word, patches first.

    Of the preceding words, unlike an explainer, it never deletes the last.
    """
    generator = random.Random(seed)
    maps, deleted = {}, {}
    for position, word in enumerate(words):
        kind = kind_of(word)
        if position >= EARLIEST_PATCHES and word_forms(word) & object_words():
            drawn = generator.sample(range(height * width), height * width)
            maps[position] = torch.tensor(drawn, dtype=torch.float32).view(height, width)
        if position >= EARLIEST_WORDS and kind is not None:
            deleted[position] = generator.sample(range(1, position), DELETED_WORDS)
    return RandomControl(maps, deleted)


class AblationSummary(NamedTuple):
    """The published summary of an ablation; shares and means over nothing are NaN and 0."""

    cases: tuple[int, int, int]
    """Deleted words before stop words and before object words; deleted patches."""
    not_raised: tuple[float, float, float]
    """Share of cases in which the word lost probability, or kept it."""
    disappeared: float
    """Share of patch cases in which the new caption lacks the word."""
    drop: tuple[float, float, float]
    """Mean loss; of patches, those that disappeared count as 0."""


def summarise_ablation(
    stops: Collection[float], objects: Collection[float], patches: Iterable[float | None]
) -> AblationSummary:
    """Sum up losses of probability as published.

    Parameters
    ----------
    stops, objects : collection of float
        Losses of stop words and object words when preceding words are deleted.
    patches : iterable of float or None
        Losses of object words when patches are taken away; None where the word disappeared.
    """
    every = list(patches)
    still = [loss for loss in every if loss is not None]

    def share(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    def not_raised(losses: Collection[float], cases: int) -> float:
        return share(sum(loss >= 0 for loss in losses), cases)

    def mean(losses: Collection[float], cases: int) -> float:
        return sum(losses) / cases if cases else 0.0

    groups = [(stops, len(stops)), (objects, len(objects)), (still, len(every))]
    shares = [not_raised(losses, cases) for losses, cases in groups]
    means = [mean(losses, cases) for losses, cases in groups]
    return AblationSummary(
        (len(stops), len(objects), len(every)),
        (shares[0], shares[1], shares[2]),
        share(len(every) - len(still), len(every)),
        (means[0], means[1], means[2]),
    )


def true_word(word_id: int, references: Sequence[Sequence[int]]) -> bool:
    """Say whether the published program takes a word for true: its id is in some reference."""
    return any(word_id in reference for reference in references)


PublishedRecord = Mapping[str, Any]
"""One word of a ``..._TP_statistics.json``: ``word``, and statistics as numbers or text."""


def published_auc(
    true: Sequence[Sequence[PublishedRecord]],
    hallucinated: Sequence[Sequence[PublishedRecord]],
    *,
    parity: bool = False,
) -> dict[str, float]:
    """Return the area under the curve of each statistic, aggregated as published.

    Of the mentions of a word in an image the largest value counts if it is true, the smallest if
    it is hallucinated; of the quantiles the lower half is looked at.

    Parameters
    ----------
    true, hallucinated : sequence (images) of sequences (words) of records
    parity : bool
        As programmed: all words of an image get the quantiles of its last word.
    """
    groups = [
        _aggregated(images, best, parity) for images, best in ((true, max), (hallucinated, min))
    ]
    return {name: auc(groups[0][name], groups[1].get(name, [])) for name in groups[0]}


def _aggregated(
    images: Sequence[Sequence[PublishedRecord]], best: Callable[..., float], parity: bool
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for records in images:
        by_word: dict[str, list[PublishedRecord]] = defaultdict(list)
        for record in records:
            by_word[record["word"]].append(record)
        for mentions in by_word.values():
            for name in set(mentions[0]) - {"word", "quantile"}:
                found[name].append(best(float(record[name]) for record in mentions))
            if "quantile" not in mentions[0]:
                continue
            rows = [records[-1] if parity else record for record in mentions]
            for place, share in enumerate(QUANTILES[:JUDGED_QUANTILES]):
                value = best(float(record["quantile"][place]) for record in rows)
                found[f"quantile {share:g}"].append(value)
    return found
