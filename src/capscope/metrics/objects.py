"""Which objects captions name, and whether they are there.

Truth comes from boxes, and from what the references name; recall asks only for objects that most
references find worth naming. The hallucination rates are CHAIR (Rohrbach et al. 2018).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import resources

import numpy as np

from capscope.data.scenes.lexicon import CLASSES
from capscope.metrics.statistics import Measure, Scores, divide, ratio

Words = Sequence[str]
AGREEMENT = 0.6
"""Share of the references that must name an object for recall: 3 of 5."""
_NOTHING = ""  # class of phrases that hold an object word but name no object


class ObjectWords:
    """Finds the object classes that a caption names.

    Parameters
    ----------
    phrases : mapping of str to str
        Phrase (one or more words, singular) to class. The longest phrase wins (``hot dog`` is no
        dog); the class ``""`` marks phrases that name no object (``baseball field``).
    """

    def __init__(self, phrases: Mapping[str, str]) -> None:
        self._phrases = {tuple(phrase.split()): name for phrase, name in phrases.items()}
        self._longest = max(map(len, self._phrases))

    @property
    def classes(self) -> frozenset[str]:
        """All classes that can be named."""
        return frozenset(self._phrases.values()) - {_NOTHING}

    def named(self, words: Words) -> list[str]:
        """Return the class of every mention, in order."""
        return [name for _, name in self.mentions(words)]

    def mentions(self, words: Words) -> list[tuple[int, str]]:
        """Return the position of the last word of every mention, and its class, in order."""
        found = []
        place = 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                name = self._class_of(tuple(words[place : place + length]))
                if name is not None:
                    place += length - 1
                    found.append((place, name))
                    break
            place += 1
        return [(place, name) for place, name in found if name != _NOTHING]

    def _class_of(self, phrase: tuple[str, ...]) -> str | None:
        *before, last = phrase
        for form in _singulars(last):
            name = self._phrases.get((*before, form))
            if name is not None:
                return name
        return None


@cache
def scene_words() -> ObjectWords:
    """Return the object words of scenes."""
    return ObjectWords({word: name for name, entry in CLASSES.items() for word in entry.names})


@cache
def coco_words() -> ObjectWords:
    """Return words for the 80 COCO categories, from the table ``data/coco_objects.json``."""
    text = resources.files("capscope").joinpath("data/coco_objects.json").read_text("utf-8")
    table: dict[str, list[str]] = json.loads(text)
    phrases = {phrase: name for name, synonyms in table.items() for phrase in synonyms}
    return ObjectWords(phrases | {name: name for name in table if name != _NOTHING})


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


def _singulars(word: str) -> list[str]:
    """Return the word and what it may be the plural of."""
    forms = [word]
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s"):
        forms.append(word[:-1])
    return forms
