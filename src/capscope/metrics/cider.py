"""CIDEr-D (Vedantam et al. 2015, equation 7), equal to pycocoevalcap's ``Cider`` and much faster.

What pycocoevalcap calls CIDEr is CIDEr-D without stemming: clipped n-gram matches, a Gaussian
penalty for the difference in length (counted in bigrams) and raw counts as term frequencies.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capscope.metrics.ngrams import (
    ORDERS,
    Counts,
    Integers,
    NgramIndex,
    Tokens,
    expand,
    pair_keys,
)

Scores = NDArray[np.float64]
SIGMA = 6.0


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many images' references an n-gram occurs, from a corpus other than the evaluated one.

    Attributes
    ----------
    counts : mapping of tuple of tokens to float
        N-grams that are missing count as 0.
    images : float
        Number of images of that corpus.
    """

    counts: Mapping[tuple[Hashable, ...], float]
    images: float

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> DocumentFrequencies:
        """Count the n-grams of a training corpus: per image, its tokenised references."""
        counts: dict[tuple[Hashable, ...], float] = {}
        for image in references:
            ngrams = {
                tuple(caption[place : place + order])
                for caption in image
                for order in range(1, ORDERS + 1)
                for place in range(len(caption) - order + 1)
            }
            for ngram in ngrams:
                counts[ngram] = counts.get(ngram, 0.0) + 1.0
        return cls(counts, len(references))


@dataclass(frozen=True)
class _References:
    """Tf-idf vectors of all references for one n, one entry per (image, n-gram, reference)."""

    idf: Scores  # of each n-gram, and at the end of those that occur nowhere
    keys: Integers  # (image, n-gram), sorted
    reference: Integers
    weight: Scores
    norm: Scores  # of each reference


class CiderD:
    """CIDEr-D against fixed references, whose tf-idf vectors are computed once.

    Parameters
    ----------
    references : sequence (one entry per image) of sequences of token sequences
        Tokens are strings or word ids; an image needs at least one reference.
    frequencies : DocumentFrequencies, optional
        Default: counted over `references`, as pycocoevalcap does.

    Raises
    ------
    ValueError
        An image has no reference.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Tokens]],
        frequencies: DocumentFrequencies | None = None,
    ) -> None:
        self._per_image = np.array([len(image) for image in references], np.int64)
        if not self._per_image.all():
            raise ValueError("CIDEr-D: every image needs at least one reference")
        self._first = np.cumsum(self._per_image) - self._per_image
        captions = [caption for image in references for caption in image]
        corpus = list(frequencies.counts) if frequencies else []
        images = frequencies.images if frequencies else len(references)
        self._log_images = float(np.log(max(1.0, float(images))))
        self._index = NgramIndex([*captions, *corpus])
        image_of = np.repeat(np.arange(len(references)), self._per_image)
        self._orders = []
        for order, counts in enumerate(self._index.counts, start=1):
            entries = counts.up_to(len(captions))
            keys = pair_keys(image_of[entries.caption], entries.ngram)
            by_key = np.argsort(keys, kind="stable")
            keys = keys[by_key]
            frequency = np.zeros(self._index.sizes[order - 1] + 1)
            if frequencies:
                lengths = np.fromiter(map(len, corpus), np.int64, len(corpus))
                values = np.fromiter(frequencies.counts.values(), np.float64, len(corpus))
                whole = np.flatnonzero(lengths == order)
                place = np.searchsorted(counts.caption, len(captions) + whole)
                frequency[counts.ngram[place]] = values[whole]
            else:
                image_has = entries.ngram[by_key][np.diff(keys, prepend=-1) != 0]
                frequency += np.bincount(image_has, minlength=len(frequency))
            idf = self._log_images - np.log(np.maximum(1.0, frequency))
            weight = entries.count * idf[entries.ngram]
            norm = _norm(entries.caption, weight, len(captions))
            self._orders.append(
                _References(idf, keys, entries.caption[by_key], weight[by_key], norm)
            )
        self._bigrams = _bigrams(self._index.counts, len(captions))

    def score(self, captions: Sequence[Tokens], images: Sequence[int] | None = None) -> Scores:
        """Score captions, each against the references of its image.

        Parameters
        ----------
        captions : sequence of token sequences
            Of the same kind as the references: strings, or word ids.
        images : sequence of int, optional
            Place of each caption's image among the references, for sampled captions that come
            several to an image; by default caption i belongs to image i.

        Returns
        -------
        ndarray (len(captions),)
            Scores from 0 to 10.
        """
        image = np.arange(len(captions)) if images is None else np.asarray(images, np.int64)
        first, per_image = self._first[image], self._per_image[image]
        caption, reference = expand(first, first + per_image)  # all pairs to compare
        pair = np.cumsum(per_image) - per_image - first
        similarity = np.zeros(len(caption))
        found = self._index.count(captions)
        for counts, table in zip(found, self._orders, strict=True):
            weight = counts.count * table.idf[np.minimum(counts.ngram, len(table.idf) - 1)]
            keys = pair_keys(image[counts.caption], counts.ngram)
            entry, place = expand(
                np.searchsorted(table.keys, keys), np.searchsorted(table.keys, keys, "right")
            )
            theirs = table.weight[place]
            dot = _sums(
                pair[counts.caption[entry]] + table.reference[place],
                np.minimum(weight[entry], theirs) * theirs,
                len(caption),
            )
            norms = _norm(counts.caption, weight, len(captions))[caption] * table.norm[reference]
            similarity += np.divide(dot, norms, out=dot, where=norms != 0)
        delta = _bigrams(found, len(captions))[caption] - self._bigrams[reference]
        similarity *= np.exp(-(delta**2) / (2 * SIGMA**2))
        return _sums(caption, similarity, len(captions)) / ORDERS / per_image * 10.0


def cider_d(
    references: Sequence[Sequence[Tokens]],
    candidates: Sequence[Tokens],
    frequencies: DocumentFrequencies | None = None,
) -> tuple[float, Scores]:
    """Score one candidate an image; return the corpus score (the mean) and the score per image."""
    if len(references) != len(candidates):
        raise ValueError(f"{len(references)} images but {len(candidates)} candidates")
    scores = CiderD(references, frequencies).score(candidates)
    return float(scores.mean()) if len(scores) else 0.0, scores


def _norm(caption: Integers, weight: Scores, captions: int) -> Scores:
    return np.sqrt(_sums(caption, weight**2, captions))


def _bigrams(counts: Sequence[Counts], captions: int) -> Scores:
    bigrams = counts[1].up_to(captions)
    return _sums(bigrams.caption, bigrams.count, captions)


def _sums(place: Integers, values: NDArray[Any], size: int) -> Scores:
    """Sum the values that belong to each of `size` places (float even where none is given)."""
    return np.bincount(place, values, minlength=size).astype(np.float64)
