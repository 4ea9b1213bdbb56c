"""N-grams of captions as numbers, counted with sorts instead of dictionaries.

An n-gram's number is the place of (number of its first n - 1 words, its last word) among all
that occur, so numbers are exact for any vocabulary: nothing is hashed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[Hashable]
Integers = NDArray[np.int64]

ORDERS = 4
_SHIFT = 32
_MASK = (1 << _SHIFT) - 1


@dataclass(frozen=True)
class Counts:
    """How often each n-gram occurs in each caption: one entry per pair that occurs.

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
            inside = left >= order
            keys = (numbers[inside] << _SHIFT) | words[np.flatnonzero(inside) + order - 1]
            table, numbers[inside] = np.unique(keys, return_inverse=True)
            self._tables.append(table)
            self.counts.append(_count(caption[inside], numbers[inside]))
        self.sizes = [len(table) for table in self._tables]

    def count(self, captions: Sequence[Tokens]) -> list[Counts]:
        """Count the n-grams of other captions, n = 1..4."""
        flat = [word for caption in captions for word in caption]
        words = np.fromiter((self._words.get(word, -1) for word in flat), np.int64, len(flat))
        new = np.flatnonzero(words < 0)
        numbered = {word: place for place, word in enumerate({flat[i]: None for i in new})}
        words[new] = [len(self._words) + numbered[flat[i]] for i in new]
        numbers = np.zeros_like(words)
        caption, left = _places(captions)
        counts = []
        for order, table in enumerate(self._tables, start=1):
            inside = left >= order
            keys = (numbers[inside] << _SHIFT) | words[np.flatnonzero(inside) + order - 1]
            found = np.searchsorted(table, keys)
            absent = found == len(table)
            absent[~absent] = table[found[~absent]] != keys[~absent]
            found[absent] = len(table) + np.unique(keys[absent], return_inverse=True)[1]
            numbers[inside] = found
            counts.append(_count(caption[inside], found))
        return counts


def pair_keys(first: Integers, second: Integers) -> Integers:
    """Join two numbers below 2^31 into one that sorts by `first`, then `second`."""
    return (first << _SHIFT) | second


def second_of(keys: Integers) -> Integers:
    """Return the second number of `pair_keys`."""
    return keys & _MASK


def expand(start: Integers, stop: Integers) -> tuple[Integers, Integers]:
    """List all (row, place) with start[row] <= place < stop[row]."""
    lengths = stop - start
    row = np.repeat(np.arange(len(start)), lengths)
    offset = np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
    return row, offset + np.arange(len(row))


def _places(captions: Sequence[Tokens]) -> tuple[Integers, Integers]:
    """For each word in a row: its caption, and how many words of it are left, itself counted."""
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    caption = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.repeat(np.cumsum(lengths), lengths)
    return caption, ends - np.arange(len(caption))


def _count(caption: Integers, ngram: Integers) -> Counts:
    keys, count = np.unique(pair_keys(caption, ngram), return_counts=True)
    return Counts(keys >> _SHIFT, second_of(keys), count)
