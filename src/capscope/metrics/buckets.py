"""Finding many keys in a large table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capscope.metrics.words import Integers


@dataclass(frozen=True)
class Buckets:
    """Where each of many different keys is: faster than a binary search, which misses the cache.

    Keys are dealt out to twice as many buckets or more by the high bits of a product; those of
    bucket b stand at ``start[b]`` to ``start[b + 1]``.
    """

    keys: Integers
    place: Integers
    start: Integers
    shift: int

    _FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth, vol. 3, section 6.4)

    @classmethod
    def of(cls, keys: Integers) -> Buckets:
        """Deal out keys."""
        bits = max(1, len(keys)).bit_length() + 1
        bucket = cls._bucket(keys, 64 - bits)
        place = np.argsort(bucket)
        start = np.zeros((1 << bits) + 1, np.int64)
        np.cumsum(np.bincount(bucket, minlength=1 << bits), out=start[1:])
        return cls(keys[place], place, start, 64 - bits)

    @classmethod
    def _bucket(cls, keys: Integers, shift: int) -> Integers:
        mixed = keys.view(np.uint64) * cls._FACTOR
        return (mixed >> np.uint64(shift)).view(np.int64)

    def find(self, keys: Integers) -> Integers:
        """Return the place of each key, the number of keys where it is absent."""
        found = np.full(len(keys), len(self.keys))
        bucket = self._bucket(keys, self.shift)
        place, stop = self.start[bucket], self.start[bucket + 1]
        left = np.flatnonzero(place < stop)
        place, stop = place[left], stop[left]
        while len(left):
            same = self.keys[place] == keys[left]
            found[left[same]] = self.place[place[same]]
            place += 1
            more = np.flatnonzero(~same & (place < stop))
            left, place, stop = left[more], place[more], stop[more]
        return found
