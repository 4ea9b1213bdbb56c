"""The words of many captions in one row: what all n-gram metrics start from."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[Hashable]
Integers = NDArray[np.int64]

_OTHER_SEPARATORS = "\t\v\f\r\x1c\x1d\x1e\x1f"


@dataclass(frozen=True)
class Words:
    """The words of all captions behind each other, and how many each caption has.

    Attributes
    ----------
    flat : list
        Words, or word ids.
    lengths : ndarray (N,)
    """

    flat: list[Hashable]
    lengths: Integers

    @classmethod
    def of(cls, captions: Sequence[Tokens]) -> Words:
        """Lay token sequences behind each other."""
        flat = list(chain.from_iterable(captions))
        return cls(flat, np.fromiter(map(len, captions), np.int64, len(captions)))

    @classmethod
    def split(cls, texts: Sequence[str]) -> tuple[Words, Words]:
        """Split tokenised texts in both ways that the metrics of pycocoevalcap do.

        Returns
        -------
        words : Words
            Split at white space of any kind, as BLEU and CIDEr do.
        fields : Words
            Split at U+0020, as ROUGE-L does: an empty text is one empty word. The same object as
            `words` where that makes no difference.
        """
        text = "\n".join(texts)
        if _is_plain(text, len(texts)):
            flat: list[Hashable] = [*text.split()]
            blanks = (one.count(" ") for one in texts)
            words = cls(flat, np.fromiter(blanks, np.int64, len(texts)) + 1)
            return words, words
        return cls.of([one.split() for one in texts]), cls.of([one.split(" ") for one in texts])

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Tokens]:
        ends = np.cumsum(self.lengths).tolist()
        lengths = self.lengths.tolist()
        return (self.flat[end - n : end] for end, n in zip(ends, lengths, strict=True))

    def __add__(self, other: Words) -> Words:
        return Words([*self.flat, *other.flat], np.append(self.lengths, other.lengths))

    @property
    def caption(self) -> Integers:
        """The caption of each word."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def _is_plain(text: str, lines: int) -> bool:
    """Tell whether single blanks between words are the only white space of every line."""
    framed = f"\n{text}\n"
    return (
        text.isascii()
        and text.count("\n") == lines - 1
        and not any(pair in framed for pair in ("  ", " \n", "\n ", "\n\n"))
        and not any(separator in text for separator in _OTHER_SEPARATORS)
    )


@dataclass(frozen=True)
class References:
    """The references of images in one row.

    Attributes
    ----------
    words : Words
    per_image : ndarray (images,)
        How many references each image has.

    Raises
    ------
    ValueError
        An image has no reference.
    """

    words: Words
    per_image: Integers

    def __post_init__(self) -> None:
        if not self.per_image.all():
            raise ValueError("every image needs at least one reference")

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> References:
        """Lay the references of all images behind each other."""
        per_image = np.fromiter(map(len, references), np.int64, len(references))
        return cls(Words.of(list(chain.from_iterable(references))), per_image)

    @cached_property
    def first(self) -> Integers:
        """Place of each image's first reference."""
        return np.cumsum(self.per_image) - self.per_image

    @cached_property
    def image(self) -> Integers:
        """The image of each reference."""
        return np.repeat(np.arange(len(self.per_image)), self.per_image)


def number_words(words: Sequence[Hashable]) -> dict[Hashable, int]:
    """Number different words in the order in which they occur."""
    return {word: place for place, word in enumerate(dict.fromkeys(words))}


def expand(start: Integers, stop: Integers) -> tuple[Integers, Integers]:
    """List all (row, place) with start[row] <= place < stop[row]."""
    lengths = stop - start
    row = np.repeat(np.arange(len(start)), lengths)
    offset = np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
    return row, offset + np.arange(len(row))
