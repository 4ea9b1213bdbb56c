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

from capscope.metrics.ngrams import ORDERS, Counts, Integers, ReferenceNgrams, Tokens, expand

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


class CiderD:
    """CIDEr-D against fixed references, whose tf-idf vectors are computed once.

    Parameters
    ----------
    references : sequence (one entry per image) of sequences of token sequences
        Tokens are strings or word ids; an image needs at least one reference.
    frequencies : DocumentFrequencies, optional
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
        references: Sequence[Sequence[Tokens]],
        frequencies: DocumentFrequencies | None = None,
    ) -> None:
        images = frequencies.images if frequencies else len(references)
        self._log_images = float(np.log(max(1.0, float(images))))
        self.ngrams = ReferenceNgrams(references, list(frequencies.counts) if frequencies else [])
        self._idf: list[Scores] = []  # of each n-gram, and at the end of those that are nowhere
        self._weight: list[Scores] = []
        self._norm: list[Scores] = []
        for order in range(ORDERS):
            counts, table = self.ngrams.counts[order], self.ngrams.orders[order]
            size = self.ngrams.index.sizes[order] + 1
            if frequencies:
                frequency = self._given(frequencies, order, size)
            else:
                frequency = np.bincount(table.ngram, minlength=size).astype(np.float64)
            idf = self._log_images - np.log(np.maximum(1.0, frequency))
            self._idf.append(idf)
            self._weight.append(
                table.count * idf[np.repeat(table.ngram, np.diff(table.start[:-1]))]
            )
            self._norm.append(
                _norm(counts.caption, counts.count * idf[counts.ngram], len(self.ngrams.lengths))
            )

    def _given(self, frequencies: DocumentFrequencies, order: int, size: int) -> Scores:
        """Return the given frequency of each numbered n-gram; 0 where none is given."""
        lengths = np.fromiter(map(len, frequencies.counts), np.int64)
        values = np.fromiter(frequencies.counts.values(), np.float64)
        whole = np.flatnonzero(lengths == order + 1)
        counts = self.ngrams.index.counts[order]
        place = np.searchsorted(counts.caption, len(self.ngrams.lengths) + whole)
        frequency = np.zeros(size)
        frequency[counts.ngram[place]] = values[whole]
        return frequency

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

    def score_counts(self, found: Sequence[Counts], image: Integers) -> Scores:
        """Score captions whose n-grams ``ngrams.index`` has counted already."""
        first, per_image = self.ngrams.first[image], self.ngrams.per_image[image]
        caption, reference = expand(first, first + per_image)  # all pairs to compare
        pair = np.cumsum(per_image) - per_image - first
        similarity = np.zeros(len(caption))
        for order, counts in enumerate(found):
            table, idf = self.ngrams.orders[order], self._idf[order]
            weight = counts.count * idf[np.minimum(counts.ngram, len(idf) - 1)]
            row = table.find(image[counts.caption], counts.ngram)
            entry, place = expand(table.start[row], table.start[row + 1])
            theirs = self._weight[order][place]
            dot = _sums(
                pair[counts.caption[entry]] + table.reference[place],
                np.minimum(weight[entry], theirs) * theirs,
                len(caption),
            )
            norm = _norm(counts.caption, weight, len(image))
            norms = norm[caption] * self._norm[order][reference]
            similarity += np.divide(dot, norms, out=dot, where=norms != 0)
        bigrams = _sums(found[1].caption, found[1].count, len(image))
        delta = bigrams[caption] - np.maximum(self.ngrams.lengths - 1, 0)[reference]
        similarity *= np.exp(-(delta**2) / (2 * SIGMA**2))
        return _sums(caption, similarity, len(image)) / ORDERS / per_image * 10.0


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


def _sums(place: Integers, values: NDArray[Any], size: int) -> Scores:
    """Sum the values that belong to each of `size` places (float even where none is given)."""
    return np.bincount(place, values, minlength=size).astype(np.float64)
