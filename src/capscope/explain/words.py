"""Kinds of words: benchmarks and tables treat nouns, colours, relations, ... apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capscope.data.scenes.lexicon import size_of, word_kind
from capscope.data.scenes.parse import claims, mentions


@dataclass(frozen=True)
class Word:
    """A content word of a caption about scenes, and what it is about.

    Attributes
    ----------
    position : int
        Its place among the words of the caption.
    kind : str
        noun, colour, size, verb, relation, place or weather.
    about : tuple of str
        Classes of the objects that it names, describes or relates; empty for place and weather,
        which are about the background.
    colour, size : str or None
        What a colour or size word claims of its object.
    """

    position: int
    kind: str
    about: tuple[str, ...] = ()
    colour: str | None = None
    size: str | None = None


def scene_words(words: Sequence[str]) -> list[Word]:
    """Return the content words of a caption about scenes, in order.

    A verb belongs to the noun directly before it ("is" may stand between).
    """
    found = []
    named = mentions(words)
    for mention in named:
        about = (mention.name,)
        found.append(Word(mention.noun, "noun", about))
        if mention.colour_at is not None:
            found.append(Word(mention.colour_at, "colour", about, colour=mention.colour))
        for position in range(mention.first, mention.noun):
            size = size_of(words[position])
            if size is not None:
                found.append(Word(position, "size", about, size=size))
        for following in range(mention.noun + 1, len(words)):
            if word_kind(words[following]) == "verb":
                found.append(Word(following, "verb", about))
            elif words[following] != "is":
                break
    for claim in claims(words):
        related = [claim.subject, claim.object] if claim.object else [claim.subject]
        for position in claim.words:
            if word_kind(words[position]) == "relation":
                names = tuple(mention.name for mention in related)
                found.append(Word(position, "relation", names))
    for position, word in enumerate(words):
        kind = word_kind(word)
        if kind in ("place", "weather"):
            found.append(Word(position, kind))
    return sorted(found, key=lambda word: word.position)
