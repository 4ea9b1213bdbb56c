"""N-grams of captions as numbers, counted and matched with sorts instead of dictionaries.

All n-grams (n = 1..4) share one row of numbers: words first, then pairs, triples, quadruples, each
in the order of their words. Numbers are exact for any vocabulary: nothing is hashed that could
collide unseen. Below 65,535 words an n-gram fits into one integer of 64 bits, which is looked up at
once; otherwise a pair's number follows from those of its words, a triple's from its first pair and
third word, a quadruple's from its two pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from capscope.metrics.lookup import Lookup, WordNumbers, join, number_with
from capscope.metrics.words import Integers, References, Tokens, Words

ORDERS = 4
_SHIFT = 32
_MASK = (1 << _SHIFT) - 1
_WORD = 16  # bits of a word where a whole n-gram is one integer


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
        self._vocabulary = WordNumbers(captions)
        self.words = self._vocabulary.numbers
        places = _Places.of(captions)
        self._keys: list[Integers] = []
        self.size = len(self._vocabulary)
        numbers = [self.words]
        for order in range(1, ORDERS):
            table, found = np.unique(places.chained(order, numbers), return_inverse=True)
            self._keys.append(table)
            numbers.append(found + self.size)
            self.size += len(table)
        self.counts = places.count(np.concatenate(numbers))
        self._packed: Lookup | None = None
        first = len(self._vocabulary)
        if first < (1 << _WORD) - 1:
            packed = np.empty(self.size - first, np.int64)
            packed[np.concatenate(numbers[1:]) - first] = places.packed(self.words)
            self._packed = Lookup(packed)

    @cached_property
    def _chained(self) -> list[Lookup]:
        """Pairs, triples and quadruples as numbers of shorter ones; seldom needed."""
        return [Lookup(keys) for keys in self._keys]

    def number(self, captions: Words) -> Integers:
        """Return the number of each word of other captions, from `size` upwards if it is new."""
        return self._vocabulary.find(captions, self.size)

    def count(self, captions: Words | Sequence[Tokens]) -> Counts:
        """Count the n-grams of other captions."""
        captions = captions if isinstance(captions, Words) else Words.of(captions)
        return self.count_numbers(captions, self.number(captions))

    def count_numbers(self, captions: Words, words: Integers) -> Counts:
        """Count the n-grams of other captions whose words are numbered already."""
        places = _Places.of(captions)
        first, new = len(self._vocabulary), max(self.size, int(words.max(initial=-1)) + 1)
        if self._packed is not None and first + new - self.size < (1 << _WORD):
            small = np.where(words < first, words, words + (first - self.size))
            longer, _ = number_with(self._packed, places.packed(small), first, new)
            return places.count(np.concatenate([words, longer]))
        numbers = [words]
        for order, table in enumerate(self._chained, start=1):
            found, new = number_with(table, places.chained(order, numbers), first, new)
            numbers.append(found)
            first += len(table)
        return places.count(np.concatenate(numbers))


@dataclass(frozen=True)
class _Places:
    """Where in a row of words the n-grams of each order begin.

    The captions' words stand in one row; ``begins[n]`` are the places of it at which an
    (n + 1)-gram begins, ``caption`` is the caption of each word.
    """

    captions: int
    caption: Integers
    begins: tuple[Integers, Integers, Integers, Integers]

    @classmethod
    def of(cls, captions: Words) -> _Places:
        lengths, caption = captions.lengths, captions.caption
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(caption))
        pairs = np.flatnonzero(left >= 2)
        triples = pairs[left[pairs] >= 3]
        begins = (np.arange(len(caption)), pairs, triples, triples[left[triples] >= 4])
        return cls(len(lengths), caption, begins)

    def chained(self, order: int, numbers: Sequence[Integers]) -> Integers:
        """Join the numbers of shorter n-grams to what stands for those of `order` + 1 words."""
        begin, words = self.begins[order], numbers[0]
        if order == 1:
            return join(words[begin], words[begin + 1])
        pair = np.empty_like(words)
        pair[self.begins[1]] = numbers[1]
        return join(pair[begin], words[begin + 2] if order == 2 else pair[begin + 2])

    def packed(self, words: Integers) -> Integers:
        """Return all n-grams of 2 to 4 words below 65,535, each as one integer."""
        words = words + 1  # 0 stands before the first word of shorter ones
        pair = np.zeros_like(words)
        pair[:-1] = words[:-1] << _WORD | words[1:]
        _, pairs, triples, quadruples = self.begins
        return np.concatenate(
            [
                pair[pairs],
                pair[triples] << _WORD | words[triples + 2],
                pair[quadruples] << 2 * _WORD | pair[quadruples + 2],
            ]
        )

    def count(self, numbers: Integers) -> Counts:
        """Count numbered n-grams, one order after the other, in each caption."""
        bits = self.captions.bit_length()
        captions = [self.caption, *(self.caption[begin] for begin in self.begins[1:])]
        rows = [caption | order << bits for order, caption in enumerate(captions)]
        keys = join(np.concatenate(rows), numbers)
        keys.sort()
        first = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)[: len(keys)]
        count = np.append(first[1:], len(keys))[: len(keys)] - first
        keys = keys[first]
        row = keys >> _SHIFT
        return Counts(row >> bits, row & ((1 << bits) - 1), keys & _MASK, count)


@dataclass(frozen=True)
class ImageNgrams:
    """N-grams of the references, by image: where to look up an (image, n-gram).

    Row u stands for the entries ``start[u]`` to ``start[u + 1]``, one per reference that has the
    n-gram. One more row, the last, is without entries.
    """

    rows: Lookup  # (U,) image and n-gram in one number, sorted
    ngram: Integers  # (U,)
    most: Integers  # (U + 1,) the largest count in one reference
    start: Integers  # (U + 2,)
    reference: Integers  # (E,)
    count: Integers  # (E,)

    @classmethod
    def of(cls, counts: Counts, image_of: Integers) -> ImageNgrams:
        """Sort the counts of all references; `image_of` gives each reference's image."""
        keys = join(image_of[counts.caption], counts.ngram)
        by_key = np.argsort(keys)
        keys, count = keys[by_key], counts.count[by_key]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        most = np.maximum.reduceat(count, first) if len(first) else count
        return cls(
            rows=Lookup(keys[first]),
            ngram=keys[first] & _MASK,
            most=np.append(most, 0),
            start=np.append(first, [len(keys), len(keys)]),
            reference=counts.caption[by_key],
            count=count,
        )

    def find(self, image: Integers, ngram: Integers) -> Integers:
        """Return the row of each (image, n-gram), -1 (the last) where no reference has it."""
        return self.rows.find(join(image, ngram))


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
