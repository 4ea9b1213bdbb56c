"""Which of two systems is better on the same images: paired bootstrap and paired t-test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capscope.metrics.statistics import ENDS, Measure, Scores, divide, percentiles


@dataclass(frozen=True)
class Comparison:
    """How much higher one measure is than another on the same images."""

    difference: float
    low: float
    """Ends of the bootstrap interval of the difference."""
    high: float
    p_bootstrap: float
    """Share of resamples on the other side of 0, both tails (Koehn 2004)."""
    t: float
    """Of the paired t-test of the scores per image; NaN where the scores do not differ."""
    p_t_test: float
    images: int
    """Images with a score of both."""


def compare_drawn(
    first: Measure, second: Measure, first_drawn: Scores, second_drawn: Scores
) -> Comparison:
    """Compare two measures of the same images whose scores on resamples are those of `resample`.

    The bootstrap is of the scores over all images. The t-test is of the scores per image: where
    the score over all is not their mean (BLEU, METEOR, ratios), the two ask different questions.
    """
    differences = first_drawn - second_drawn
    low, high = percentiles(differences)
    differences = differences[~np.isnan(differences)]
    tail = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    p_bootstrap = min(1.0, 2 * float(tail) / (len(differences) + 1))
    t, p_t_test, images = paired_t_test(first.per_image, second.per_image)
    difference = first.value - second.value
    return Comparison(difference, low, high, p_bootstrap, t, p_t_test, images)


@dataclass(frozen=True)
class Comparisons:
    """What a `Comparison` says, of P pairs at once; every field is an array (P,)."""

    difference: Scores
    low: Scores
    high: Scores
    p_bootstrap: Scores
    t: Scores
    p_t_test: Scores
    images: NDArray[np.int64]


def compare_pairs(
    measures: Sequence[Measure],
    drawn: Sequence[Scores],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> Comparisons:
    """Compare many pairs of measures of the same images, as `compare_drawn` compares one.

    Parameters
    ----------
    measures : sequence of Measure
    drawn : sequence of ndarray (resamples,)
        Their scores on the same resamples, from `resample`.
    first, second : int (P,)
        Which measures the pairs are of.
    """
    from scipy.special import stdtr

    scores, values = np.array(drawn), np.array([measure.value for measure in measures])
    differences = scores[first] - scores[second]
    known = ~np.isnan(differences)
    tail = np.minimum((differences <= 0).sum(1), (differences >= 0).sum(1)) + 1
    p_bootstrap = np.minimum(1.0, 2 * tail / (known.sum(1) + 1))
    ends = np.full((2, len(first)), np.nan)
    whole = known.all(1)
    ends[:, whole] = np.quantile(differences[whole], ENDS, axis=1)
    for pair in np.flatnonzero(~whole):
        ends[:, pair] = percentiles(differences[pair])

    of_images = np.array([measure.per_image for measure in measures])
    per_image = of_images[first] - of_images[second]
    shared = ~np.isnan(per_image)
    images = shared.sum(1)
    mean = divide(np.nansum(per_image, 1), images)
    squares = np.nansum((per_image - mean[:, None]) ** 2, 1)
    spread = np.sqrt(divide(squares, np.maximum(images - 1, 0)))
    # Equal differences have no spread, whatever the rounding of their mean leaves.
    lowest = np.where(shared, per_image, np.inf).min(1)
    highest = np.where(shared, per_image, -np.inf).max(1)
    constant = (images > 1) & (lowest == highest)
    t = divide(mean, np.where(constant, 0.0, spread) / np.sqrt(np.maximum(images, 1)))
    t[constant & (mean != 0)] = np.copysign(np.inf, mean[constant & (mean != 0)])
    p_t_test = 2 * stdtr(np.maximum(images - 1, 1), -np.abs(t))
    return Comparisons(
        values[first] - values[second], ends[0], ends[1], p_bootstrap, t, p_t_test, images
    )


def paired_t_test(first: Scores, second: Scores) -> tuple[float, float, int]:
    """Test whether scores of the same images differ in the mean (Student 1908).

    Returns
    -------
    t : float
    p : float
        Two-sided.
    images : int
        With both scores; fewer than 2, or all with the same difference of 0, give t = p = NaN.
    """
    from scipy.special import stdtr

    differences = first - second
    differences = differences[~np.isnan(differences)]
    count = len(differences)
    spread = float(differences.std(ddof=1)) if count > 1 else 0.0
    mean = float(differences.mean()) if count else 0.0
    if not spread:
        certain = count > 1 and mean != 0.0
        return (float(np.copysign(np.inf, mean)), 0.0, count) if certain else (*_UNDEFINED, count)
    t = mean / (spread / count**0.5)
    return t, float(2 * stdtr(count - 1, -abs(t))), count


_UNDEFINED = (float("nan"), float("nan"))
