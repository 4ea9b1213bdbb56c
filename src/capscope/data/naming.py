"""Which object classes the words of a caption name: scenes, COCO, Flickr30K Entities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from capscope.data.scenes.lexicon import CLASSES

Words = Sequence[str]
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
        self._beginnings = {phrase[0] for phrase in self._phrases if len(phrase) > 1}

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
            longest = self._longest if words[place] in self._beginnings else 1
            for length in range(min(longest, len(words) - place), 0, -1):
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
    return ObjectWords(_phrases("coco_objects.json"))


@cache
def flickr30k_words() -> ObjectWords:
    """Return words for what Flickr30K Entities has boxes of.

    COCO's categories, and the clothing, instruments, surroundings and things of
    ``data/flickr30k_objects.json``.
    """
    return ObjectWords(_phrases("coco_objects.json") | _phrases("flickr30k_objects.json"))


def _phrases(file: str) -> dict[str, str]:
    text = resources.files("capscope").joinpath("data", file).read_text("utf-8")
    table: dict[str, list[str]] = json.loads(text)
    phrases = {phrase: name for name, synonyms in table.items() for phrase in synonyms}
    return phrases | {name: name for name in table if name != _NOTHING}


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
