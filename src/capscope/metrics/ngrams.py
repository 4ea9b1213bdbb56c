"""N-grams of captions as numbers, counted and matched with sorts instead of dictionaries.

All n-grams (n = 1..4) share one row of numbers. A word's number is its place among the words; a
pair's follows from the numbers of its two words, a triple's from its first pair and third word, a
quadruple's from its two pairs. So numbers are exact for any vocabulary: nothing is hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from capscope.metrics.buckets import Buckets
from capscope.metrics.words import Integers, References, Tokens, Words, number_words

ORDERS = 4
_SHIFT = 32
_MASK = (1 << _SHIFT) - 1


@dataclass(frozen=True)
class Counts:
    """How often each n-gram occurs in each caption: one entry per pair that occurs.

    Entries are sorted by order, then caption, then n-gram.
    """

    order: Integers
    """n - 1."""
    caption: Integers
    ngram: Integers
    count: Integers

    def between(self, start: int, stop: int) -> Counts:
        """Return the entries of some captions, counted from the first of them."""
        if start == 0 and (not len(self.caption) or self.caption.max() < stop):
            return self
        inside = np.flatnonzero((self.caption >= start) & (self.caption < stop))
        caption = self.caption[inside] - start
        return Counts(self.order[inside], caption, self.ngram[inside], self.count[inside])


class NgramIndex:
    """Numbers for all words and n-grams (n = 1..4) of some captions.

    Parameters
    ----------
    captions : Words

    Attributes
    ----------
    counts : Counts
        The n-grams of `captions`.
    words : ndarray
        The number of each word of `captions`.
    size : int
        How many different n-grams there are; an n-gram that `captions` lack gets a number from
        here upwards, valid within one call of `count`.
    """

    def __init__(self, captions: Words) -> None:
        self._numbers = number_words(captions.flat)
        self.words = np.fromiter(
            map(self._numbers.__getitem__, captions.flat), np.int64, len(captions.flat)
        )
        places = _Places.of(captions)
        first = len(self._numbers)
        self._pairs, pairs = np.unique(places.pairs(self.words), return_inverse=True)
        pairs += first
        first += len(self._pairs)
        self._longer, longer = np.unique(places.longer(self.words, pairs), return_inverse=True)
        longer += first
        self.size = first + len(self._longer)
        self.counts = places.count(self.words, pairs, longer)

    def number(self, captions: Words) -> Integers:
        """Return the number of each word of other captions."""
        flat = captions.flat
        numbers = np.fromiter(map(self._numbers.get, flat, repeat(-1)), np.int64, len(flat))
        unknown = np.flatnonzero(numbers < 0).tolist()
        new = [flat[place] for place in unknown]
        found = number_words(new)
        numbers[unknown] = [self.size + found[word] for word in new]
        return numbers

    def count(self, captions: Words | Sequence[Tokens]) -> Counts:
        """Count the n-grams of other captions."""
        captions = captions if isinstance(captions, Words) else Words.of(captions)
        return self.count_numbers(captions, self.number(captions))

    def count_numbers(self, captions: Words, words: Integers) -> Counts:
        """Count the n-grams of other captions whose words are numbered already."""
        places = _Places.of(captions)
        new = max(self.size, int(words.max(initial=-1)) + 1)
        first = len(self._numbers)
        pairs, new = _number(self._pairs, places.pairs(words), first, new)
        first += len(self._pairs)
        longer, new = _number(self._longer, places.longer(words, pairs), first, new)
        return places.count(words, pairs, longer)


@dataclass(frozen=True)
class _Places:
    """Where in a row of words the n-grams of each order begin.

    The captions' words stand in one row; ``begins[n]`` are the places of it at which an
    (n + 1)-gram begins, ``caption`` is the caption of each word.
    """

    captions: int
    caption: Integers
    begins: tuple[Integers, Integers, Integers]
    """Of pairs, triples and quadruples."""

    @classmethod
    def of(cls, captions: Words) -> _Places:
        lengths, caption = captions.lengths, captions.caption
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(caption))
        pairs = np.flatnonzero(left >= 2)
        triples = pairs[left[pairs] >= 3]
        return cls(len(lengths), caption, (pairs, triples, triples[left[triples] >= 4]))

    def pairs(self, words: Integers) -> Integers:
        """Join the numbers of two words that follow each other."""
        begin = self.begins[0]
        return _join(words[begin], words[begin + 1])

    def longer(self, words: Integers, pairs: Integers) -> Integers:
        """Join numbers to what stands for all triples, then all quadruples."""
        pair = np.empty_like(words)
        pair[self.begins[0]] = pairs
        triples, quadruples = self.begins[1:]
        return np.concatenate(
            [
                _join(pair[triples], words[triples + 2]),
                _join(pair[quadruples], pair[quadruples + 2]),
            ]
        )

    def count(self, words: Integers, pairs: Integers, longer: Integers) -> Counts:
        """Count numbered n-grams in each caption."""
        captions = [self.caption, *(self.caption[begin] for begin in self.begins)]
        rows = [order * self.captions + caption for order, caption in enumerate(captions)]
        keys = _join(np.concatenate(rows), np.concatenate([words, pairs, longer]))
        keys.sort()
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        count = np.diff(first, append=len(keys))
        keys = keys[first]
        order, caption = np.divmod(keys >> _SHIFT, max(1, self.captions))
        return Counts(order, caption, keys & _MASK, count)


@dataclass(frozen=True)
class ImageNgrams:
    """N-grams of the references, by image: where to look up an (image, n-gram).

    Row u stands for the entries ``start[u]`` to ``start[u + 1]``, one per reference that has the
    n-gram. One more row, without entries, stands for all that is not there.
    """

    key: Integers  # (U,) image and n-gram in one number, sorted
    ngram: Integers  # (U,)
    most: Integers  # (U + 1,) the largest count in one reference
    start: Integers  # (U + 2,)
    reference: Integers  # (E,)
    count: Integers  # (E,)
    buckets: Buckets  # of `key`

    @classmethod
    def of(cls, counts: Counts, image_of: Integers) -> ImageNgrams:
        """Sort the counts of all references; `image_of` gives each reference's image."""
        keys = _join(image_of[counts.caption], counts.ngram)
        by_key = np.argsort(keys)
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
            buckets=Buckets.of(keys[first]),
        )

    def find(self, image: Integers, ngram: Integers) -> Integers:
        """Return the row of each (image, n-gram)."""
        return self.buckets.find(_join(image, ngram))


class ReferenceNgrams:
    """The n-grams of the references of some images, numbered and sorted once for all metrics.

    Parameters
    ----------
    references : References
    corpus : Words, optional
        Further captions whose n-grams get numbers.

    Attributes
    ----------
    counts : Counts
        The n-grams of all references.
    images : ImageNgrams
        The same by image.
    """

    def __init__(self, references: References, corpus: Words | None = None) -> None:
        self.references = references
        captions = references.words + corpus if corpus else references.words
        self.index = NgramIndex(captions)
        self.counts = self.index.counts.between(0, len(references.words))
        self.images = ImageNgrams.of(self.counts, references.image)

    @property
    def words(self) -> Integers:
        """The number of each word of the references."""
        return self.index.words[: len(self.references.words.flat)]

    def corpus_counts(self) -> Counts:
        """Return the n-grams of `corpus`, its captions counted from 0."""
        return self.index.counts.between(len(self.references.words), 2**31)


def _join(first: Integers, second: Integers) -> Integers:
    """Join two numbers below 2^31 into one that sorts by `first`, then `second`."""
    return (first << _SHIFT) | second


def _find(table: Integers, keys: Integers) -> Integers:
    """Return the place of each key in a sorted table, ``len(table)`` where it is absent."""
    place = np.searchsorted(table, keys)
    inside = np.flatnonzero(place < len(table))
    place[inside[table[place[inside]] != keys[inside]]] = len(table)
    return place


def _number(table: Integers, keys: Integers, first: int, new: int) -> tuple[Integers, int]:
    """Number n-grams: those of the table from `first`, others from `new`; return the next new."""
    distinct, which = np.unique(keys, return_inverse=True)
    found = _find(table, distinct)
    unknown = np.flatnonzero(found == len(table))
    found += first
    found[unknown] = new + np.arange(len(unknown))
    return found[which], new + len(unknown)
