"""Measurements: means over words with bootstrap intervals, as a tidy table."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from capscope.files import write_text
from capscope.metrics.statistics import interval, ratio


class Measurement(NamedTuple):
    """One row of a benchmark's table."""

    explainer: str
    resolution: str
    """grid or pixels."""
    word_kind: str
    split: str
    measure: str
    value: float
    low: float
    """95 % interval."""
    high: float
    n: int
    """Words."""


class Key(NamedTuple):
    """What a score belongs to."""

    explainer: str
    resolution: str
    word_kind: str
    split: str
    measure: str


class Scores:
    """Scores of single words, gathered image by image: words of one image are not independent."""

    def __init__(self) -> None:
        self._sums: dict[Key, dict[int, tuple[float, float, int]]] = defaultdict(dict)

    def add(self, key: Key, image_id: int, value: float, whole: float = 1.0) -> None:
        """Add the score of one word of one image; with `whole`, a share of something."""
        part, total, words = self._sums[key].get(image_id, (0.0, 0.0, 0))
        self._sums[key][image_id] = (part + value, total + whole, words + 1)

    def measurements(self, resamples: int, seed: int) -> list[Measurement]:
        """Return the mean of every group of scores, bootstrapped over images."""
        rows = []
        for key, images in self._sums.items():
            part, whole, words = np.array(list(images.values())).T
            measure = ratio(part, whole)
            low, high = interval(measure, resamples=resamples, seed=seed)
            rows.append(Measurement(*key, measure.value, low, high, int(words.sum())))
        return rows


def write_measurements(path: Path, rows: Iterable[Measurement]) -> None:
    """Write a tidy table, six decimals."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Measurement._fields)
    for row in rows:
        writer.writerow([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row])
    write_text(path, text.getvalue())
