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
LEVEL = 0.95
ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
"""Of the middle part of resampled values that an interval is."""
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
    of_images : bool
        False if the formula says nothing about a single image, as a mean over words of which an
        image has few.
    """

    sums: Scores
    formula: Callable[[Scores], Scores]
    count: int
    chance: float | None = None
    note: str = ""
    of_images: bool = True

    @property
    def value(self) -> float:
        """The score over all images."""
        return float(self.formula(self.sums.sum(axis=0)))

    @property
    def per_image(self) -> Scores:
        """The score of each image alone, (N,); NaN where it has none."""
        return self.formula(self.sums) if self.of_images else np.full(len(self.sums), np.nan)


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
        measures[0].of_images,
    )


def ratio_of_sums(sums: Scores) -> Scores:
    """Return the first sum over the second, NaN where the second is 0."""
    return divide(sums[..., 0], sums[..., 1])


def divide(part: Scores, whole: Scores) -> Scores:
    """Divide; NaN where `whole` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    quotient: Scores = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
    return quotient


def resample(measures: Sequence[Measure], *, resamples: int = 1000, seed: int = 1) -> list[Scores]:
    """Score measures of the same images anew on resamples of these images.

    Returns
    -------
    list of ndarray (resamples,)
        For each measure its scores; entry k of all of them is of the same images. Without images
        there is no entry.

    Raises
    ------
    ValueError
        The measures are not of the same number of images.
    """
    counts = [len(measure.sums) for measure in measures]
    if len(set(counts)) > 1:
        raise ValueError(f"{counts[0]} images against {next(n for n in counts if n != counts[0])}")
    different = list({id(measure.sums): measure.sums for measure in measures}.values())
    ends = np.cumsum([sums.shape[1] for sums in different])
    columns = {id(s): slice(end - s.shape[1], end) for s, end in zip(different, ends, strict=True)}
    drawn: list[list[Scores]] = [[] for _ in measures]
    for weights in _draws(counts[0] if counts else 0, resamples, seed):
        sums = weights @ np.hstack(different)
        for scores, measure in zip(drawn, measures, strict=True):
            scores.append(measure.formula(sums[:, columns[id(measure.sums)]]))
    return [np.concatenate(scores) if scores else np.zeros(0) for scores in drawn]


def _draws(images: int, resamples: int, seed: int) -> Iterator[Scores]:
    """Yield how often each image is drawn, (<= 100, images), for all resamples."""
    if not images:
        return
    rng = np.random.default_rng(seed)
    share = np.full(images, 1 / images)
    for start in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - start)
        yield rng.multinomial(images, share, size=size).astype(np.float64)


def percentiles(values: Scores) -> tuple[float, float]:
    """Return the ends of the middle part of values (Efron 1979), as large as `LEVEL`.

    Undefined values are left out; NaN if there are none.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, ENDS)
    return float(low), float(high)
