"""Finding many words or numbers in a large table at once."""

from __future__ import annotations

from functools import cached_property
from itertools import repeat

import numpy as np
import pandas as pd

from capscope.metrics.words import Integers, Words, number_words

_SHIFT = 32
_LARGEST_ID = 1 << 20  # word ids up to here are looked up in an array


class Lookup:
    """Where each of many different numbers stands in a table.

    The hash table, made when first needed, is that of pandas: several times as fast as a binary
    search by NumPy where the numbers come in no order.

    Parameters
    ----------
    keys : ndarray
        Different from each other.
    """

    def __init__(self, keys: Integers) -> None:
        self.keys = keys

    @cached_property
    def _index(self) -> pd.Index[int]:
        return pd.Index(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: Integers) -> Integers:
        """Return the place of each key, -1 where it is absent."""
        return self._index.get_indexer(pd.Index(keys))


class WordNumbers:
    """Numbers for different words, in the order in which they occur.

    Parameters
    ----------
    captions : Words

    Attributes
    ----------
    numbers : ndarray
        The number of each word of `captions`.
    """

    def __init__(self, captions: Words) -> None:
        self._of = number_words(captions.flat)
        flat = captions.flat
        self.numbers = np.fromiter(map(self._of.__getitem__, flat), np.int64, len(flat))
        self._of_id = self._array()

    def __len__(self) -> int:
        return len(self._of)

    def find(self, captions: Words, new: int) -> Integers:
        """Return the number of each word of other captions, from `new` upwards if it is none."""
        if self._of_id is not None:
            ids = np.array(captions.flat)
            if ids.dtype == np.int64 and ids.min() >= 0 and ids.max() < len(self._of_id):
                return self._find_ids(ids, new)
        flat = captions.flat
        numbers = np.fromiter(map(self._of.get, flat, repeat(-1)), np.int64, len(flat))
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            words = [flat[place] for place in unknown.tolist()]
            found = number_words(words)
            numbers[unknown] = [new + found[word] for word in words]
        return numbers

    def _find_ids(self, ids: Integers, new: int) -> Integers:
        assert self._of_id is not None
        numbers = self._of_id[ids]
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            numbers[unknown] = new + np.unique(ids[unknown], return_inverse=True)[1]
        return numbers

    def _array(self) -> Integers | None:
        """Return the number of each word id, -1 where there is none; None for other words."""
        words = np.array(list(self._of))
        if words.dtype != np.int64 or words.min() < 0 or words.max() >= _LARGEST_ID:
            return None
        numbers = np.full(int(words.max()) + 1, -1)
        numbers[words] = np.arange(len(words))
        return numbers


def number_with(table: Lookup, keys: Integers, first: int, new: int) -> tuple[Integers, int]:
    """Number keys: those of the table from `first`, others from `new`; return the next new."""
    found = table.find(keys)
    unknown = np.flatnonzero(found < 0)
    if first:
        found += first
    if len(unknown):
        distinct, which = np.unique(keys[unknown], return_inverse=True)
        found[unknown] = new + which
        new += len(distinct)
    return found, new


def join(first: Integers, second: Integers) -> Integers:
    """Join two numbers below 2^31 into one that sorts by `first`, then `second`."""
    return (first << _SHIFT) | second
