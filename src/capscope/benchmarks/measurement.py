"""Measurements: means over words with bootstrap intervals, as a tidy table."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capscope.files import write_text
from capscope.metrics.statistics import divide, percentiles

PAIRED = {
    "ground_truth": {
        *((place, "noun", "hit") for place in ("grid", "pooled", "pixels")),
        *((place, "noun", "choice") for place in ("grid", "pooled", "pixels")),
        ("pixels", "noun", "mass"),
        ("pixels", "noun", "rank"),
    },
    "correctness": {("pixels", "noun", "correctness")},
    "removal": {("pixels", "noun", "agreement")},
    "deletion": {("grid", "noun", "deletion"), ("grid", "noun", "insertion")},
    "ablation": {("words", "object word", "drop"), ("pixels", "object word", "disappeared")},
    "latent_ablation": {("grid", "noun", "drop *"), ("grid", "noun", "missing *")},
    "latent_correlation": {("grid", "noun", name) for name in ("spearman *", "score")},
    "latent_objects": {("grid", kind, "choice *") for kind in ("noun", "caption")},
    "components": {("grid", "caption", name) for name in ("CIDEr sigma *", "same CIDEr sigma *")},
    "randomisation": {("grid", "noun", "random weights"), ("grid", "noun", "another noun")},
    "contribution": {("grid", "all", "vision")},
    "conservation": {("grid", "all", "error")},
}
"""Of each benchmark, what is kept image by image: resolution, kind of word, measures (pattern)."""


class ImageSums(NamedTuple):
    """The scores of one image's words."""

    part: float
    """Sum of the scores."""
    whole: float
    """What it is divided by: the number of words, unless scores are shares of something."""
    words: int


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
    images: Mapping[int, ImageSums] | None = None
    """What the value is the ratio of, image by image; None where it is no ratio of sums."""


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
        self._sums: dict[Key, dict[int, ImageSums]] = defaultdict(dict)

    def add(self, key: Key, image_id: int, value: float, whole: float = 1.0) -> None:
        """Add the score of one word of one image; with `whole`, a share of something."""
        part, total, words = self._sums[key].get(image_id, (0.0, 0.0, 0))
        self._sums[key][image_id] = ImageSums(part + value, total + whole, words + 1)

    def measurements(self, resamples: int, seed: int) -> list[Measurement]:
        """Return the mean of every group of scores, bootstrapped over images."""
        rows = {}
        # By their number of images, so that `resampled` draws once for each number.
        for key, images in sorted(self._sums.items(), key=lambda item: len(item[1])):
            part, whole, words = np.array(list(images.values())).T
            drawn = resampled(len(images), resamples, seed)
            value = float(divide(part.sum(), whole.sum()))
            low, high = percentiles(divide(drawn @ part, drawn @ whole))
            rows[key] = Measurement(*key, value, low, high, int(words.sum()), images)
        return [rows[key] for key in self._sums]


@lru_cache(maxsize=1)
def resampled(images: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return how often each image is drawn in each bootstrap resample, (resamples, images).

    Measures of the same number of images share their draws: a table has hundreds of them.
    """
    share = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, share, resamples).astype(np.float64)


def write_measurements(path: Path, rows: Iterable[Measurement]) -> None:
    """Write a tidy table, six decimals; image by image only what `PAIRED` names (`write_sums`)."""
    write_rows(path, Measurement._fields[:-1], (row[:-1] for row in rows))


def write_sums(path: Path, benchmark: str, rows: Iterable[Measurement]) -> None:
    """Write the sums of each image that paired tests of explainers and captioners need."""
    wanted = PAIRED.get(benchmark, ())
    fields = (*Key._fields, "image_id", "part", "whole")
    write_rows(
        path,
        fields,
        (
            (*row[: len(Key._fields)], image_id, sums.part, sums.whole)
            for row in rows
            if row.images
            and any(
                [row.resolution, row.word_kind] == place and fnmatchcase(row.measure, pattern)
                for *place, pattern in wanted
            )
            for image_id, sums in row.images.items()
        ),
    )


def write_rows(path: Path, fields: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table, six decimals."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row])
    write_text(path, text.getvalue())
