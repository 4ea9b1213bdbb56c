"""Which objects captions name, and whether they are there.

Truth comes from boxes, and from what the references name; recall asks only for objects that most
references find worth naming. The hallucination rates are CHAIR (Rohrbach et al. 2018).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from capscope.data.naming import ObjectWords, Words
from capscope.metrics.statistics import Measure, Scores, divide, ratio

AGREEMENT = 0.6
"""Share of the references that must name an object for recall: 3 of 5."""


def object_measures(
    words: ObjectWords,
    boxes: Sequence[Collection[str]],
    references: Sequence[Sequence[Words]],
    captions: Sequence[Words],
) -> dict[str, Measure]:
    """Score the objects that captions name.

    Parameters
    ----------
    words : ObjectWords
    boxes : sequence (one entry per image) of class names
        What is depicted; what a reference names counts as depicted, too.
    references : sequence (one entry per image) of sequences of word sequences
    captions : sequence of word sequences

    Returns
    -------
    dict of str to Measure
        ``object_precision``, ``object_recall``, ``object_f1``, ``CHAIR-i``, ``CHAIR-s``.
    """
    rows = [
        _row(set(there), [set(words.named(text)) for text in theirs], words.named(caption))
        for there, theirs, caption in zip(boxes, references, captions, strict=True)
    ]
    columns = np.array(rows, np.float64).reshape(len(rows), 7).T
    right, named, recalled, agreed, wrong_mentions, mentions, wrong = columns
    return {
        "object_precision": ratio(right, named),
        "object_recall": ratio(recalled, agreed),
        "object_f1": Measure(columns[:4].T, _f1, len(rows)),
        "CHAIR-i": ratio(wrong_mentions, mentions),
        "CHAIR-s": ratio(wrong, np.ones(len(rows))),
    }


def _row(there: set[str], references: list[set[str]], mentions: list[str]) -> tuple[int, ...]:
    votes = Counter(name for named in references for name in named)
    needed = math.ceil(AGREEMENT * len(references))
    agreed = {name for name, count in votes.items() if count >= needed}
    named, truth = set(mentions), there | set(votes)
    wrong_mentions = sum(name not in truth for name in mentions)
    return (
        len(named & truth),
        len(named),
        len(named & agreed),
        len(agreed),
        wrong_mentions,
        len(mentions),
        int(wrong_mentions > 0),
    )


def _f1(sums: Scores) -> Scores:
    """Return F1 of precision and recall; 0 where nothing is named but something should be."""
    right, named, recalled, agreed = np.moveaxis(sums, -1, 0)
    precision = np.nan_to_num(divide(right, named))
    recall = np.nan_to_num(divide(recalled, agreed))
    undefined = (named == 0) & (agreed == 0)
    f1 = np.nan_to_num(divide(2 * precision * recall, precision + recall))
    return np.where(undefined, np.nan, f1)
