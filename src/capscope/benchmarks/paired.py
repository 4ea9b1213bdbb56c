"""Explainers on the same words: is one of them better?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import wilcoxon

from capscope.benchmarks.measurement import ImageSums, Key, Measurement, percentiles, resampled

NOTHING = float("nan")
BETWEEN = " - "
"""Stands between the names of two explainers in rows that compare them."""


def comparisons(
    rows: Iterable[Measurement], wanted: Callable[[str], bool], resamples: int, seed: int
) -> list[Measurement]:
    """Compare every pair of explainers on the same words.

    Parameters
    ----------
    rows : iterable of Measurement
        With the sums of their images.
    wanted : callable
        Says of a measure's name whether it is compared.

    Returns
    -------
    list of Measurement
        For explainers a and b, as rows ``a - b``: those of `paired_differences`, and ``Holm's p of
        ...``, corrected for the number of pairs that one measure (of one split and kind of word)
        has: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    families: dict[Key, dict[str, Mapping[int, ImageSums]]] = defaultdict(dict)
    for row in rows:
        if row.images and wanted(row.measure):
            key = Key("", row.resolution, row.word_kind, row.split, row.measure)
            families[key][row.explainer] = row.images
    found = []
    for key, images in families.items():
        tested = [
            pair
            for a, b in combinations(images, 2)
            if (
                pair := paired_differences(
                    key._replace(explainer=a + BETWEEN + b), images[a], images[b], resamples, seed
                )
            )
        ]
        corrected = holm([p.value for _, p in tested])
        for (difference, p), value in zip(tested, corrected, strict=True):
            found += [difference, p, p._replace(measure=f"Holm's {p.measure}", value=value)]
    return found


def paired_differences(
    key: Key,
    first: Mapping[int, ImageSums],
    second: Mapping[int, ImageSums],
    resamples: int,
    seed: int,
) -> list[Measurement]:
    """Compare scores of the same words, image by image: words of one image are not independent.

    Parameters
    ----------
    key : Key
        Of the rows; the measures have ``difference of`` and ``p of`` in front.
    first, second : mapping
        Image to the sums of its words.

    Returns
    -------
    list of Measurement
        The mean difference with its bootstrap interval over images; and the two-sided p-value of
        Wilcoxon's signed-rank test on the images' mean differences (1 where all are 0). Nothing
        without an image in both.
    """
    images = [image for image in first if image in second]
    if not images:
        return []
    differences = np.array(
        [_mean(first[image]) - _mean(second[image]) for image in images], np.float64
    )
    drawn = resampled(len(images), resamples, seed)
    low, high = percentiles(drawn @ differences / drawn.sum(1))
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    words = sum(first[image].words for image in images)
    return [
        Measurement(*_named(key, "difference"), float(differences.mean()), low, high, words),
        Measurement(*_named(key, "p"), p, NOTHING, NOTHING, words),
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's procedure, in the given order."""
    order = np.argsort(p_values, kind="stable").tolist()
    largest = 0.0
    corrected = [0.0] * len(order)
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def _mean(sums: ImageSums) -> float:
    return sums.part / sums.whole


def _named(key: Key, what: str) -> Key:
    return key._replace(measure=f"{what} of {key.measure}")
