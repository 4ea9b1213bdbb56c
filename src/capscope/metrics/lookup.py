"""Finding many words or numbers in a large table at once."""

from __future__ import annotations

from itertools import repeat

import numpy as np

from capscope.metrics.words import Integers, Words, number_words

_SHIFT = 32
_LARGEST_ID = 1 << 20  # word ids up to here are looked up in an array


class Lookup:
    """Where each of many different numbers stands in a table.

    Keys are dealt out to buckets by the high bits of a product (Knuth, vol. 3, section 6.4). That
    costs the same in any order and for any size, where a binary search misses the cache.

    Parameters
    ----------
    keys : ndarray
        Different from each other.
    """

    _FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio

    def __init__(self, keys: Integers) -> None:
        bits = max(1, len(keys)).bit_length()
        self._shift = np.uint64(64 - bits)
        bucket = self._bucket(keys)
        place = np.argsort(bucket)
        self.keys = keys
        self._keys, self._place = keys[place], place.astype(np.int32)
        ends = np.cumsum(np.bincount(bucket, minlength=1 << bits))
        self._start = np.append(0, ends).astype(np.int32)

    def __len__(self) -> int:
        return len(self.keys)

    def _bucket(self, keys: Integers) -> Integers:
        return ((keys.view(np.uint64) * self._FACTOR) >> self._shift).view(np.int64)

    def find(self, keys: Integers) -> Integers:
        """Return the place of each key, -1 where it is absent."""
        found = np.full(len(keys), -1)
        bucket = self._bucket(keys)
        at, stop = self._start[bucket], self._start[bucket + 1]
        left = np.flatnonzero(at < stop)
        at, stop, keys = at[left], stop[left], keys[left]
        while len(left):
            same = self._keys[at] == keys
            found[left[same]] = self._place[at[same]]
            at += 1
            more = np.flatnonzero(~same & (at < stop))
            left, at, stop, keys = left[more], at[more], stop[more], keys[more]
        return found


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
    found += first
    if len(unknown):
        distinct, which = np.unique(keys[unknown], return_inverse=True)
        found[unknown] = new + which
        new += len(distinct)
    return found, new


def join(first: Integers, second: Integers) -> Integers:
    """Join two numbers below 2^31 into one that sorts by `first`, then `second`."""
    return (first << _SHIFT) | second
