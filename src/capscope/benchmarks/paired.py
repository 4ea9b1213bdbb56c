"""Two explainers on the same words: is one of them better?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import wilcoxon

from capscope.benchmarks.measurement import Key, Measurement, percentiles, resampled


def paired_differences(
    key: Key,
    first: Mapping[int, Sequence[float]],
    second: Mapping[int, Sequence[float]],
    resamples: int,
    seed: int,
) -> list[Measurement]:
    """Compare scores of the same words, image by image: words of one image are not independent.

    Parameters
    ----------
    key : Key
        Of the rows; the measures have ``difference of`` and ``p of`` in front.
    first, second : mapping
        Image to the scores of its words, in the same order.

    Returns
    -------
    list of Measurement
        The mean difference with its bootstrap interval over images; and the two-sided p-value of
        Wilcoxon's signed-rank test on the images' mean differences (1 where all are 0).
    """
    images = [image for image in first if image in second]
    if not images:
        return []
    differences = np.array(
        [np.mean(np.subtract(first[image], second[image])) for image in images], np.float64
    )
    drawn = resampled(len(images), resamples, seed)
    low, high = percentiles(drawn @ differences / drawn.sum(1))
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    words = sum(len(first[image]) for image in images)
    nothing = float("nan")
    return [
        Measurement(*_named(key, "difference"), float(differences.mean()), low, high, words),
        Measurement(*_named(key, "p"), p, nothing, nothing, words),
    ]


def _named(key: Key, what: str) -> Key:
    return key._replace(measure=f"{what} of {key.measure}")
