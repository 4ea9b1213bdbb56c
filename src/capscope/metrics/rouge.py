"""ROUGE-L (Lin 2004) as the COCO evaluation computes it: best precision with best recall.

The longest common subsequence runs over the bits of one integer per reference (Hyyro 2004), which
in Python may be as long as the caption is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from capscope.metrics.ngrams import Tokens

Scores = NDArray[np.float64]
BETA = 1.2


def rouge_l(
    references: Sequence[Sequence[Tokens]], candidates: Sequence[Tokens]
) -> tuple[float, Scores]:
    """Score one candidate an image; return the corpus score (the mean) and the score per image.

    An empty caption counts as one empty token, as in pycocoevalcap: it equals an empty reference.
    """
    scores = np.zeros(len(candidates))
    for image, (theirs, candidate) in enumerate(zip(references, candidates, strict=True)):
        words = candidate or ("",)
        precision = recall = 0.0
        for reference in theirs:
            common = common_subsequence(reference or ("",), words)
            precision = max(precision, common / len(words))
            recall = max(recall, common / max(1, len(reference)))
        if precision and recall:
            scores[image] = (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return float(scores.mean()) if len(scores) else 0.0, scores


def common_subsequence(first: Tokens, second: Tokens) -> int:
    """Return the length of the longest common subsequence."""
    places: dict[Hashable, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | (1 << place)
    everything = (1 << len(first)) - 1
    open_places = everything
    for word in second:
        if word in places:
            matched = open_places & places[word]
            open_places = (open_places + matched) | (open_places - matched)
    return len(first) - (open_places & everything).bit_count()
