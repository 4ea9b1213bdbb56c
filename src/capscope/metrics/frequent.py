"""Precision and recall of frequent words: the "mAP" of Sun et al., Information Fusion 77, 2022.

Which words: the published lists of two data sets, or the object words that most images of the
training split have in a reference, as many as a cut-off says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from capscope.data.naming import ObjectWords
from capscope.metrics.statistics import Measure, Scores, divide

FREQUENT_WORDS = {
    "flickr30k": (
        *("dogs", "building", "person", "background", "field", "women", "hat", "ball"),
        *("children", "child", "water", "street", "boy", "dog", "girl", "men", "shirt"),
        *("people", "woman", "man"),
    ),
    "coco2017": (
        *("clock", "kitchen", "picture", "water", "food", "pizza", "grass", "building", "bus"),
        *("sign", "bathroom", "baseball", "dog", "room", "cat", "plate", "train", "field"),
        *("tennis", "person", "table", "street", "woman", "people", "man"),
    ),
}
"""The published lists: frequent object words of each data set."""


def frequent_object_words(
    words: ObjectWords, references: Iterable[Iterable[Sequence[str]]]
) -> list[str]:
    """Return single words that name an object, the most frequent first.

    Parameters
    ----------
    words : ObjectWords
    references : iterable (one entry per image) of word sequences
        An image counts once for each word of its references; ties are in the order of letters.
    """
    images = Counter(
        word for texts in references for word in {word for text in texts for word in text}
    )
    named = [word for word in images if words.named([word])]
    return sorted(named, key=lambda word: (-images[word], word))


def frequent_word_measures(
    frequent: Sequence[str],
    references: Sequence[Sequence[Sequence[str]]],
    captions: Sequence[Sequence[str]],
    cutoff: int | None = None,
) -> dict[str, Measure]:
    """Score whether captions use frequent words where some reference does.

    Parameters
    ----------
    frequent : sequence of str
        Words, compared exactly (no plurals).
    references : sequence (one entry per image) of sequences of word sequences
    captions : sequence of word sequences
    cutoff : int, optional
        Take so many words, and name the measures after it: ``word_f1@10``.

    Returns
    -------
    dict of str to Measure
        ``word_precision``, ``word_recall``, ``word_f1``: means over the words, 0 for a word that
        nobody uses.
    """
    suffix = "" if cutoff is None else f"@{cutoff}"
    frequent = frequent[:cutoff]
    note = f"the words: {', '.join(frequent)}"
    said = _presence(frequent, captions)
    there = _presence(frequent, [[w for text in image for w in text] for image in references])
    sums = np.hstack([said & there, said, there]).astype(np.float64)

    def mean_over_words(score: Callable[[Scores, Scores, Scores], Scores]) -> Measure:
        def formula(sums: Scores) -> Scores:
            right, named, wanted = np.split(sums, 3, axis=-1)
            means: Scores = np.nan_to_num(score(right, named, wanted)).mean(axis=-1)
            return means

        return Measure(sums, formula, len(captions), note=note, of_images=False)

    measures = {
        "word_precision": mean_over_words(lambda right, named, _: divide(right, named)),
        "word_recall": mean_over_words(lambda right, _, wanted: divide(right, wanted)),
        "word_f1": mean_over_words(lambda right, named, wanted: divide(2 * right, named + wanted)),
    }
    return {name + suffix: measure for name, measure in measures.items()}


def _presence(
    frequent: Sequence[str], texts: Sequence[Sequence[str]]
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    found = [[word in words for word in frequent] for words in map(set, texts)]
    return np.array(found, np.bool_).reshape(len(texts), len(frequent))
