"""CIDEr-D (Vedantam et al. 2015, equation 7), equal to pycocoevalcap's ``Cider`` and much faster.

What pycocoevalcap calls CIDEr is CIDEr-D without stemming: clipped n-gram matches, a Gaussian
penalty for the difference in length (counted in bigrams) and raw counts as term frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capscope.metrics.frequencies import Frequencies
from capscope.metrics.ngrams import ORDERS, Counts, ReferenceNgrams
from capscope.metrics.words import Integers, References, Tokens, expand

Scores = NDArray[np.float64]
SIGMA = 6.0


class CiderD:
    """CIDEr-D against fixed references, whose tf-idf vectors are computed once.

    Parameters
    ----------
    references : References, or sequence (one entry per image) of sequences of token sequences
        Tokens are strings or word ids; an image needs at least one reference.
    frequencies : Frequencies, optional
        Default: counted over `references`, as pycocoevalcap does.

    Attributes
    ----------
    ngrams : ReferenceNgrams
        The numbered references, for other metrics to share.

    Raises
    ------
    ValueError
        An image has no reference.
    """

    def __init__(
        self,
        references: References | Sequence[Sequence[Tokens]],
        frequencies: Frequencies | None = None,
    ) -> None:
        if not isinstance(references, References):
            references = References.of(references)
        self.ngrams = ReferenceNgrams(references, frequencies.captions if frequencies else None)
        table, counts, size = self.ngrams.images, self.ngrams.counts, self.ngrams.index.size
        if frequencies:
            images = float(frequencies.images)
            frequency = frequencies.of_ngrams(self.ngrams.corpus_counts(), size)
        else:
            images = float(len(references.per_image))
            frequency = np.bincount(table.ngram, minlength=size).astype(np.float64)
        log_images = np.log(max(1.0, images))
        # The last entry stands for n-grams that are nowhere.
        self._idf = log_images - np.log(np.maximum(1.0, np.append(frequency, 0.0)))
        self._weight = table.count * self._idf[np.repeat(table.ngram, np.diff(table.start[:-1]))]
        self._start, self._matches = table.start[:-1], np.diff(table.start)
        self._cell = ORDERS * table.reference
        weight = counts.count * self._idf[counts.ngram]
        self._norm = _norms(counts, weight, len(references.words))
        # The length is that in pairs of words, but for texts without a pair.
        self._length = np.maximum(references.words.lengths, 1)

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
        return self.score_counts(self.ngrams.index.count(captions), image)

    def score_counts(self, found: Counts, image: Integers) -> Scores:
        """Score captions whose n-grams ``ngrams.index`` has counted already."""
        nowhere = len(self._idf) - 1
        weight = found.count * self._idf[np.minimum(found.ngram, nowhere)]
        norm = _norms(found, weight, len(image))
        # All (caption, reference) pairs of an image, and of each the four dot products.
        references = self.ngrams.references
        first, per_image = references.first[image], references.per_image[image]
        caption, reference = expand(first, first + per_image)
        cell = ORDERS * (np.cumsum(per_image) - per_image - first)
        known = np.flatnonzero(found.ngram < nowhere)
        whose = found.caption[known]
        row = self.ngrams.images.find(image[whose], found.ngram[known])
        there = np.flatnonzero(row >= 0)
        row, known, whose = row[there], known[there], whose[there]
        start, matches = self._start[row], self._matches[row]
        place = np.repeat(start - (np.cumsum(matches) - matches), matches)
        place += np.arange(len(place))
        ours, theirs = np.repeat(weight[known], matches), self._weight[place]
        cells = np.repeat(cell[whose] + found.order[known], matches)
        cells += self._cell[place]
        dot = _sums(cells, np.minimum(ours, theirs) * theirs, ORDERS * len(caption))
        dot = dot.reshape(len(caption), ORDERS)
        norms = norm[caption] * self._norm[reference]
        norms[norms == 0] = 1.0  # of n-grams without weight, which have no product either
        similarity = (dot / norms).sum(axis=1)
        lengths = _sums(found.caption, found.count * (found.order == 0), len(image))
        difference = np.maximum(lengths, 1)[caption] - self._length[reference]
        similarity *= np.exp(-(difference**2) / (2 * SIGMA**2))
        return _sums(caption, similarity, len(image)) / ORDERS / per_image * 10.0


def cider_d(
    references: Sequence[Sequence[Tokens]],
    candidates: Sequence[Tokens],
    frequencies: Frequencies | None = None,
) -> tuple[float, Scores]:
    """Score one candidate an image; return the corpus score (the mean) and the score per image."""
    if len(references) != len(candidates):
        raise ValueError(f"{len(references)} images but {len(candidates)} candidates")
    scores = CiderD(references, frequencies).score(candidates)
    return float(scores.mean()) if len(scores) else 0.0, scores


def _norms(counts: Counts, weight: Scores, captions: int) -> Scores:
    """Return the length of each caption's vector, (captions, 4)."""
    squares = _sums(counts.caption * ORDERS + counts.order, weight**2, ORDERS * captions)
    lengths: Scores = np.sqrt(squares).reshape(captions, ORDERS)
    return lengths


def _sums(place: Integers, values: NDArray[Any], size: int) -> Scores:
    """Sum the values that belong to each of `size` places (float even where none is given)."""
    return np.bincount(place, values, minlength=size).astype(np.float64, copy=False)
