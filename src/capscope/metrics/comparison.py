"""Which of two systems is better on the same images: paired bootstrap and paired t-test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capscope.metrics.statistics import LEVEL, Measure, Scores, percentiles, resample


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


def compare(
    first: Measure,
    second: Measure,
    *,
    resamples: int = 1000,
    seed: int = 1,
    level: float = LEVEL,
) -> Comparison:
    """Compare two measures of the same images, in the same order.

    The bootstrap is of the scores over all images. The t-test is of the scores per image: where
    the score over all is not their mean (BLEU, METEOR, ratios), the two ask different questions.

    Raises
    ------
    ValueError
        The measures are not of the same number of images.
    """
    drawn = resample([first, second], resamples=resamples, seed=seed)
    return compare_drawn(first, second, *drawn, level=level)


def compare_drawn(
    first: Measure,
    second: Measure,
    first_drawn: Scores,
    second_drawn: Scores,
    *,
    level: float = LEVEL,
) -> Comparison:
    """Compare two measures whose scores on the same resamples are known from `resample`."""
    differences = first_drawn - second_drawn
    low, high = percentiles(differences, level)
    differences = differences[~np.isnan(differences)]
    tail = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    p_bootstrap = min(1.0, 2 * float(tail) / (len(differences) + 1))
    t, p_t_test, images = paired_t_test(first.per_image, second.per_image)
    difference = first.value - second.value
    return Comparison(difference, low, high, p_bootstrap, t, p_t_test, images)


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
