"""What a score rests on: sums over images, and intervals by drawing images anew.

Every caption metric here is a formula of sums over images (a mean is one of the simplest), so
corpus value, score per image, bootstrap interval and paired comparison need no code of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
_BATCH = 100  # resamples at a time


@dataclass(frozen=True)
class Measure:
    """A metric of some captions.

    Attributes
    ----------
    sums : ndarray (N, K)
        What is summed over images.
    formula : callable
        From sums (..., K) to the score (...), NaN where it is undefined.
    count : int
        How many things the score is about: images, words, claims.
    chance : float, optional
        The score of guessing.
    note : str
        What a reader must know besides the metric's definition: where document frequencies come
        from, versions of models.
    """

    sums: Scores
    formula: Callable[[Scores], Scores]
    count: int
    chance: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """The score over all images."""
        return float(self.formula(self.sums.sum(axis=0)))

    @property
    def per_image(self) -> Scores:
        """The score of each image alone, (N,)."""
        return self.formula(self.sums)


def mean(values: Scores, note: str = "") -> Measure:
    """Return the measure that is the mean of one value an image."""
    sums = np.column_stack([values, np.ones(len(values))])
    return Measure(sums, ratio_of_sums, len(values), note=note)


def ratio(part: Scores, whole: Scores, chance: float | None = None) -> Measure:
    """Return the measure that is the sum of `part` over the sum of `whole`."""
    return Measure(np.column_stack([part, whole]), ratio_of_sums, int(whole.sum()), chance)


def average(measures: Sequence[Measure]) -> Measure:
    """Return the mean of measures of the same images, such as rounds; undefined ones left out."""
    ends = np.cumsum([measure.sums.shape[1] for measure in measures])[:-1]

    def formula(sums: Scores) -> Scores:
        parts = np.split(sums, ends, axis=-1)
        scores = [measure.formula(part) for measure, part in zip(measures, parts, strict=True)]
        defined = ~np.isnan(scores)
        return divide(np.nansum(scores, axis=0), defined.sum(axis=0))

    chances = [measure.chance for measure in measures if measure.chance is not None]
    return Measure(
        np.hstack([measure.sums for measure in measures]),
        formula,
        sum(measure.count for measure in measures),
        sum(chances) / len(chances) if chances else None,
        measures[0].note,
    )


def ratio_of_sums(sums: Scores) -> Scores:
    """Return the first sum over the second, NaN where the second is 0."""
    return divide(sums[..., 0], sums[..., 1])


def divide(part: Scores, whole: Scores) -> Scores:
    """Divide; NaN where `whole` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    quotient: Scores = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
    return quotient


def interval(
    measure: Measure, *, resamples: int = 1000, seed: int = 1, level: float = 0.95
) -> tuple[float, float]:
    """Return a bootstrap percentile interval over images (Efron 1979); NaN without images."""
    drawn = [measure.formula(w @ measure.sums) for w in _draws(len(measure.sums), resamples, seed)]
    return _percentiles(drawn, level)


@dataclass(frozen=True)
class Comparison:
    """How much higher one measure is than another on the same images."""

    difference: float
    low: float
    high: float
    p_value: float
    """Share of resamples on the other side of 0, both tails (Koehn 2004)."""


def paired_bootstrap(
    first: Measure,
    second: Measure,
    *,
    resamples: int = 1000,
    seed: int = 1,
    level: float = 0.95,
) -> Comparison:
    """Compare two measures on resamples of the same images, in the same order.

    Raises
    ------
    ValueError
        The measures are not of the same number of images.
    """
    if len(first.sums) != len(second.sums):
        raise ValueError(f"{len(first.sums)} images against {len(second.sums)}")
    drawn = [
        first.formula(weights @ first.sums) - second.formula(weights @ second.sums)
        for weights in _draws(len(first.sums), resamples, seed)
    ]
    low, high = _percentiles(drawn, level)
    differences = np.concatenate(drawn) if drawn else np.zeros(0)
    tail = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    p_value = min(1.0, 2 * float(tail) / (len(differences) + 1))
    return Comparison(first.value - second.value, low, high, p_value)


def _draws(images: int, resamples: int, seed: int) -> Iterator[Scores]:
    """Yield how often each image is drawn, (<= 100, images), for all resamples."""
    if not images:
        return
    rng = np.random.default_rng(seed)
    share = np.full(images, 1 / images)
    for start in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - start)
        yield rng.multinomial(images, share, size=size).astype(np.float64)


def _percentiles(drawn: list[Scores], level: float) -> tuple[float, float]:
    values = np.concatenate(drawn) if drawn else np.zeros(0)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
