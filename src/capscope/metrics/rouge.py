"""ROUGE-L (Lin 2004) as the COCO evaluation computes it: best precision with best recall.

The longest common subsequence runs over the bits of one integer per reference (Hyyro 2004): 64-bit
integers for all pairs at once, Python's long ones for captions of more than 64 words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from capscope.metrics.words import Integers, References, Tokens, Words, expand, number_words

Scores = NDArray[np.float64]
BETA = 1.2
_BITS = 64
_CELLS = 2_000_000  # comparisons at a time


def rouge_l(
    references: Sequence[Sequence[Tokens]], candidates: Sequence[Tokens]
) -> tuple[float, Scores]:
    """Score one candidate an image; return the corpus score (the mean) and the score per image.

    An empty caption counts as one empty token, as in pycocoevalcap: it equals an empty reference.
    """
    if len(references) != len(candidates):
        raise ValueError(f"{len(references)} images but {len(candidates)} candidates")
    theirs = References.of([[text or ("",) for text in image] for image in references])
    scores = rouge_of_words(theirs, Words.of([text or ("",) for text in candidates]))
    return float(scores.mean()) if len(scores) else 0.0, scores


def rouge_of_words(references: References, candidates: Words) -> Scores:
    """Score one candidate an image; every text has at least one word, be it an empty one."""
    flat = [*references.words.flat, *candidates.flat]
    numbers = number_words(flat)
    words = np.fromiter(map(numbers.__getitem__, flat), np.int64, len(flat))
    theirs, ours = np.split(words, [len(references.words.flat)])
    return rouge_of_numbers(references, theirs, candidates.lengths, ours)


def rouge_of_numbers(
    references: References, theirs: Integers, lengths: Integers, ours: Integers
) -> Scores:
    """Score one candidate an image.

    Parameters
    ----------
    references : References
    theirs : ndarray
        The number of each word of the references.
    lengths : ndarray (images,)
        Words of each candidate, at least 1.
    ours : ndarray
        The number of each word of the candidates.
    """
    if not len(lengths):
        return np.zeros(0)
    image = references.image
    common = _common_subsequences(theirs, references.words.lengths, ours, lengths, image)
    precision = np.maximum.reduceat(common / lengths[image], references.first)
    recall = np.maximum.reduceat(common / references.words.lengths, references.first)
    weighted = recall + BETA**2 * precision
    matched = (1 + BETA**2) * precision * recall
    scores: Scores = np.divide(matched, weighted, out=np.zeros_like(weighted), where=weighted > 0)
    return scores


def _common_subsequences(
    theirs: Integers, their_lengths: Integers, ours: Integers, lengths: Integers, image: Integers
) -> Integers:
    """Return the length of the longest common subsequence of each reference and its candidate."""
    begin, our_begin = np.cumsum(their_lengths) - their_lengths, np.cumsum(lengths) - lengths
    our_lengths, our_begin = lengths[image], our_begin[image]
    common = np.zeros(len(image), np.int64)
    longest = np.maximum(their_lengths, our_lengths)
    for pair in np.flatnonzero(longest > _BITS):
        first = theirs[begin[pair] :][: their_lengths[pair]]
        second = ours[our_begin[pair] :][: our_lengths[pair]]
        common[pair] = common_subsequence(first.tolist(), second.tolist())
    for pairs in _batches(longest):
        rows = _padded(theirs, begin[pairs], their_lengths[pairs], -1)
        columns = _padded(ours, our_begin[pairs], our_lengths[pairs], -2)
        # Bit k of equal[p, t]: word k of the reference is word t of the candidate.
        equal = np.packbits(rows[:, None] == columns[:, :, None], axis=-1, bitorder="little")
        masks = np.zeros((*equal.shape[:2], _BITS // 8), np.uint8)
        masks[..., : equal.shape[-1]] = equal
        open_places = np.full(len(pairs), -1, np.int64).view(np.uint64)
        for mask in masks.view("<u8")[..., 0].T:
            matched = open_places & mask
            open_places = (open_places + matched) | (open_places & ~mask)
        common[pairs] = np.bitwise_count(~open_places)
    return common


def _batches(longest: Integers) -> Iterator[Integers]:
    """Yield pairs of 64 words and less, similar lengths together."""
    order = np.argsort(longest, kind="stable")
    order = order[: np.searchsorted(longest[order], _BITS, side="right")]
    while len(order):
        size = max(1, min(len(order), _CELLS // int(longest[order[-1]]) ** 2))
        yield order[len(order) - size :]
        order = order[: len(order) - size]


def _padded(words: Integers, begin: Integers, lengths: Integers, padding: int) -> NDArray[np.int32]:
    """Return rows of words, (N, longest), padded at the end."""
    row, place = expand(begin, begin + lengths)
    rows = np.full((len(begin), lengths.max()), padding, np.int32)
    rows[row, place - begin[row]] = words[place]
    return rows


def common_subsequence(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common subsequence of texts of any length."""
    places: dict[int, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | (1 << place)
    everything = (1 << len(first)) - 1
    open_places = everything
    for word in second:
        if word in places:
            matched = open_places & places[word]
            open_places = (open_places + matched) | (open_places - matched)
    return len(first) - (open_places & everything).bit_count()
