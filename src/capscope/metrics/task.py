"""What metrics that need a model from outside are asked to score, and how they decline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capscope.errors import CapscopeError
from capscope.metrics.statistics import Measure, ratio_of_sums

NOT_COMPUTED = "not computed"
"""How the note of a measure without a value begins; tables print these words in its place."""


class UnavailableError(CapscopeError):
    """What a metric needs is not here; the others are computed without it."""


@dataclass(frozen=True)
class Texts:
    """References, and captions in rows.

    Attributes
    ----------
    references : sequence (one entry per image) of sequences of str
    rows : sequence of sequences of str
        Each row has one caption an image.
    """

    references: Sequence[Sequence[str]]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Task:
    """All captions of the images of a split.

    Attributes
    ----------
    raw, tokenized : Texts
        As they were written, and as `capscope.metrics.tokenizer.ptb_tokenize` returns them.
    left_out : sequence of int or None
        For each row, which reference of every image is not to be used: it is the caption.
    images : sequence of Path
        Where the image files are, if there are any.
    """

    raw: Texts
    tokenized: Texts
    left_out: Sequence[int | None]
    images: Sequence[Path]

    def against(self, texts: Texts, row: int) -> list[Sequence[str]]:
        """Return the references that the captions of a row are scored against."""
        chosen = self.left_out[row]
        if chosen is None:
            return list(texts.references)
        return [[*image[:chosen], *image[chosen + 1 :]] for image in texts.references]


def not_computed(images: int, reason: str) -> Measure:
    """Return a measure that has no value, only the reason why."""
    undefined = np.zeros((images, 2))
    return Measure(undefined, ratio_of_sums, 0, note=f"{NOT_COMPUTED}: {reason}")


def is_computed(measure: Measure) -> bool:
    """Return whether a measure is more than the reason why there is none."""
    return not measure.note.startswith(NOT_COMPUTED)
