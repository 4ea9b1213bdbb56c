"""The area under the ROC curve: the chance that a positive case has the higher value.

Equal to the statistic of Mann and Whitney (1947) over all pairs; intervals draw images anew, since
the words of one image are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capscope.benchmarks.measurement import resampled
from capscope.metrics.statistics import percentiles

_BATCH = 100  # resamples at a time


def auc(true: Sequence[float], hallucinated: Sequence[float]) -> float:
    """Return the chance that a true word has the higher value; ties count half (NaN if none)."""
    values = np.array([*true, *hallucinated])
    labels = np.arange(len(values)) < len(true)
    return float(_weighted_auc(values, labels, np.ones((1, len(values))))[0])


class Judged(NamedTuple):
    """One word, for the area under the curve of a statistic."""

    image_id: int
    true: bool
    value: float


def auc_with_interval(
    words: Sequence[Judged], resamples: int, seed: int
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its interval, bootstrapped over images."""
    values = np.array([word.value for word in words])
    labels = np.array([word.true for word in words])
    images, of_word = np.unique([word.image_id for word in words], return_inverse=True)
    value = float(_weighted_auc(values, labels, np.ones((1, len(words))))[0])
    drawn = _weighted_auc(values, labels, resampled(len(images), resamples, seed)[:, of_word])
    return value, *percentiles(drawn)


def _weighted_auc(
    values: NDArray[np.float64], labels: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the area (R,) for each row of word weights (R, n); NaN without a pair."""
    found = np.full(len(weights), np.nan)
    if not len(values):
        return found
    order = np.argsort(values, kind="stable")
    ties = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    for first in range(0, len(weights), _BATCH):
        rows = slice(first, first + _BATCH)
        drawn = weights[rows][:, order]
        true = np.add.reduceat(drawn * labels[order], ties, axis=1)
        false = np.add.reduceat(drawn * ~labels[order], ties, axis=1)
        below = np.cumsum(false, axis=1) - false / 2
        pairs = true.sum(1) * false.sum(1)
        np.divide((true * below).sum(1), pairs, out=found[rows], where=pairs > 0)
    return found
