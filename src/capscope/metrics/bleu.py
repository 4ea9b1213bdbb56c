"""BLEU-1..4 (Papineni et al. 2002) as the COCO evaluation computes it: no smoothing, corpus level.

The reference length of an image is the one closest to the caption's, ties to the shorter. The
constants keep divisions defined, as in pycocoevalcap: an image without a match scores about 1e-8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capscope.metrics.ngrams import ORDERS, Counts, ReferenceNgrams
from capscope.metrics.words import Integers, References, Tokens, expand

Scores = NDArray[np.float64]
SMALL, TINY = 1e-9, 1e-15


def bleu(
    references: Sequence[Sequence[Tokens]], candidates: Sequence[Tokens]
) -> tuple[Scores, Scores]:
    """Score one candidate an image.

    Parameters
    ----------
    references : sequence (one entry per image) of sequences of token sequences
    candidates : sequence of token sequences

    Returns
    -------
    corpus : ndarray (4,)
        BLEU-1..4 of summed counts; not the mean of the images' scores.
    per_image : ndarray (4, N)
    """
    if len(references) != len(candidates):
        raise ValueError(f"{len(references)} images but {len(candidates)} candidates")
    ngrams = ReferenceNgrams(References.of(references))
    sums = bleu_sums(ngrams, ngrams.index.count(candidates), np.arange(len(candidates)))
    return bleu_of_sums(sums.sum(0)), bleu_of_sums(sums).T


def bleu_sums(ngrams: ReferenceNgrams, found: Counts, image: Integers) -> Scores:
    """Count what BLEU sums over images.

    Parameters
    ----------
    ngrams : ReferenceNgrams
    found : Counts
        The captions' n-grams, counted by ``ngrams.index``.
    image : ndarray (N,)
        Place of each caption's image.

    Returns
    -------
    ndarray (N, 10)
        Matched n-grams and all n-grams for n = 1..4, length, length of the closest reference.
    """
    cell = found.caption * ORDERS + found.order
    size = len(image) * ORDERS
    guesses = _sums(cell, found.count, size).reshape(-1, ORDERS)
    most = ngrams.images.most[ngrams.images.find(image[found.caption], found.ngram)]
    correct = _sums(cell, np.minimum(found.count, most), size).reshape(-1, ORDERS)
    lengths = guesses[:, 0]
    closest = _closest_length(ngrams, lengths, image)
    return np.column_stack([correct, guesses, lengths, closest]).astype(np.float64)


def bleu_of_sums(sums: Scores) -> Scores:
    """Return BLEU-1..4, (..., 4), of sums over one image or many, (..., 10)."""
    correct, guesses = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, reference_length = sums[..., -2, None], sums[..., -1, None]
    precision = np.cumprod((correct + TINY) / (guesses + SMALL), axis=-1)
    ratio = (length + TINY) / (reference_length + SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    scores: Scores = precision ** (1 / np.arange(1, ORDERS + 1)) * brevity
    return scores


def _closest_length(ngrams: ReferenceNgrams, lengths: Integers, image: Integers) -> Integers:
    """Return the length of the reference whose length is closest to the caption's."""
    references = ngrams.references
    first = references.first[image]
    caption, reference = expand(first, first + references.per_image[image])
    theirs = references.words.lengths[reference]
    best_first = np.lexsort((theirs, np.abs(theirs - lengths[caption]), caption))
    return theirs[best_first[np.flatnonzero(np.diff(caption, prepend=-1))]]


def _sums(place: Integers, values: Integers, size: int) -> Integers:
    return np.bincount(place, values, minlength=size).astype(np.int64)
