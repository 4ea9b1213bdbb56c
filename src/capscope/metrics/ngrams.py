"""N-grams of captions as numbers, counted and matched with sorts instead of dictionaries.

An n-gram's number is the place of (number of its first n - 1 words, its last word) among all
that occur, so numbers are exact for any vocabulary: nothing is hashed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[Hashable]
Integers = NDArray[np.int64]

ORDERS = 4
_SHIFT = 32
_MASK = (1 << _SHIFT) - 1


@dataclass(frozen=True)
class Counts:
    """How often each n-gram of one order occurs in each caption: one entry per pair that occurs.

    Entries are sorted by caption, then n-gram.
    """

    caption: Integers
    ngram: Integers
    count: Integers

    def up_to(self, caption: int) -> Counts:
        """Return the entries of the captions before `caption`."""
        end = int(np.searchsorted(self.caption, caption))
        return Counts(self.caption[:end], self.ngram[:end], self.count[:end])


class NgramIndex:
    """Numbers for all words and n-grams (n = 1..4) of some captions.

    Parameters
    ----------
    captions : sequence of token sequences
        Tokens are strings or word ids.

    Attributes
    ----------
    counts : list of Counts
        For n = 1..4, the n-grams of `captions`.
    sizes : list of int
        For n = 1..4, how many different n-grams there are; an n-gram that `captions` lack gets a
        number from here upwards, valid within one call of `count`.
    """

    def __init__(self, captions: Sequence[Tokens]) -> None:
        self._words: dict[Hashable, int] = {}
        number = self._words
        flat = [word for caption in captions for word in caption]
        words = np.fromiter((number.setdefault(w, len(number)) for w in flat), np.int64, len(flat))
        self._tables: list[Integers] = []
        self.counts: list[Counts] = []
        numbers = np.zeros_like(words)
        caption, left = _places(captions)
        for order in range(1, ORDERS + 1):
            inside = np.flatnonzero(left >= order)
            keys = _join(numbers[inside], words[inside + order - 1])
            table, numbers[inside] = np.unique(keys, return_inverse=True)
            self._tables.append(table)
            self.counts.append(_count(caption[inside], numbers[inside]))
        self.sizes = [len(table) for table in self._tables]

    def count(self, captions: Sequence[Tokens]) -> list[Counts]:
        """Count the n-grams of other captions, n = 1..4."""
        flat = [word for caption in captions for word in caption]
        words = np.fromiter(map(self._words.get, flat, repeat(-1)), np.int64, len(flat))
        new = np.flatnonzero(words < 0)
        numbered = {word: place for place, word in enumerate({flat[i]: None for i in new})}
        words[new] = [len(self._words) + numbered[flat[i]] for i in new]
        numbers = np.zeros_like(words)
        caption, left = _places(captions)
        counts = []
        for order, table in enumerate(self._tables, start=1):
            inside = np.flatnonzero(left >= order)
            keys = _join(numbers[inside], words[inside + order - 1])
            distinct, which = np.unique(keys, return_inverse=True)
            found = _find(table, distinct)
            new = np.flatnonzero(found == len(table))
            found[new] += np.arange(len(new))
            numbers[inside] = found[which]
            counts.append(_count(caption[inside], numbers[inside]))
        return counts


@dataclass(frozen=True)
class ImageNgrams:
    """N-grams of one order in the references, by image: where to look up an (image, n-gram).

    Row u stands for the entries ``start[u]`` to ``start[u + 1]``, one per reference that has the
    n-gram. One more row, without entries, stands for all that is not there.
    """

    key: Integers  # (U,) image and n-gram in one number, sorted
    ngram: Integers  # (U,)
    most: Integers  # (U + 1,) the largest count in one reference
    start: Integers  # (U + 2,)
    reference: Integers  # (E,)
    count: Integers  # (E,)

    @classmethod
    def of(cls, counts: Counts, image_of: Integers) -> ImageNgrams:
        """Sort the counts of all references; `image_of` gives each reference's image."""
        keys = _join(image_of[counts.caption], counts.ngram)
        by_key = np.argsort(keys, kind="stable")
        keys, count = keys[by_key], counts.count[by_key]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        most = np.maximum.reduceat(count, first) if len(first) else count
        return cls(
            key=keys[first],
            ngram=keys[first] & _MASK,
            most=np.append(most, 0),
            start=np.append(first, [len(keys), len(keys)]),
            reference=counts.caption[by_key],
            count=count,
        )

    def find(self, image: Integers, ngram: Integers) -> Integers:
        """Return the row of each (image, n-gram)."""
        return _find(self.key, _join(image, ngram))


class ReferenceNgrams:
    """The n-grams of the references of some images, numbered and sorted once for all metrics.

    Parameters
    ----------
    references : sequence (one entry per image) of sequences of token sequences
        Tokens are strings or word ids; an image needs at least one reference.
    corpus : sequence of token sequences
        Further n-grams to number, as captions behind the references.

    Raises
    ------
    ValueError
        An image has no reference.
    """

    def __init__(
        self, references: Sequence[Sequence[Tokens]], corpus: Sequence[Tokens] = ()
    ) -> None:
        self.per_image = np.fromiter(map(len, references), np.int64, len(references))
        if not self.per_image.all():
            raise ValueError("every image needs at least one reference")
        self.first = np.cumsum(self.per_image) - self.per_image
        captions = [caption for image in references for caption in image]
        self.lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        self.index = NgramIndex([*captions, *corpus])
        image_of = np.repeat(np.arange(len(references)), self.per_image)
        self.counts = [counts.up_to(len(captions)) for counts in self.index.counts]
        self.orders = [ImageNgrams.of(counts, image_of) for counts in self.counts]


def expand(start: Integers, stop: Integers) -> tuple[Integers, Integers]:
    """List all (row, place) with start[row] <= place < stop[row]."""
    lengths = stop - start
    row = np.repeat(np.arange(len(start)), lengths)
    offset = np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
    return row, offset + np.arange(len(row))


def _join(first: Integers, second: Integers) -> Integers:
    """Join two numbers below 2^31 into one that sorts by `first`, then `second`."""
    return (first << _SHIFT) | second


def _find(table: Integers, keys: Integers) -> Integers:
    """Return the place of each key in a sorted table, ``len(table)`` where it is absent."""
    place = np.searchsorted(table, keys)
    inside = np.flatnonzero(place < len(table))
    place[inside[table[place[inside]] != keys[inside]]] = len(table)
    return place


def _places(captions: Sequence[Tokens]) -> tuple[Integers, Integers]:
    """For each word in a row: its caption, and how many words of it are left, itself counted."""
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    caption = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    return caption, ends - np.arange(len(caption))


def _count(caption: Integers, ngram: Integers) -> Counts:
    keys, count = np.unique(_join(caption, ngram), return_counts=True)
    return Counts(keys >> _SHIFT, keys & _MASK, count)
