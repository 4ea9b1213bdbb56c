"""Reading captions of scenes: which objects they name, in which colour, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capscope.data.scenes.lexicon import RELATIONS, SIDES, colour_of, noun_class, size_of
from capscope.data.scenes.recipe import Recipe
from capscope.data.scenes.relations import holds, side_holds


@dataclass(frozen=True)
class Mention:
    """An object as a caption names it.

    `first` and `noun` are the positions of its first word and of its noun among the words;
    `colour_at` that of its colour word, None where it has none.
    """

    name: str
    colour: str | None
    first: int
    noun: int
    colour_at: int | None = None


@dataclass(frozen=True)
class Claim:
    """``subject relation object``, or a side of the image where `object` is None.

    `relation` is a key of `RELATIONS`, or of `SIDES` where `object` is None; `words` are the
    positions of its words.
    """

    subject: Mention
    relation: str
    object: Mention | None
    words: tuple[int, ...]


_PHRASES = sorted(
    ((tuple(text.split()), name) for name, texts in RELATIONS.items() for text in texts),
    key=lambda entry: -len(entry[0]),
)
_SIDE_PHRASES = sorted(
    ((tuple(text.split()), name) for name, texts in SIDES.items() for text in texts),
    key=lambda entry: -len(entry[0]),
)


def mentions(words: Sequence[str]) -> list[Mention]:
    """Return the objects that a caption names, in order.

    The colour of a noun is the nearest colour word among the article, sizes and colours that
    stand directly before it.
    """
    found = []
    for position, word in enumerate(words):
        name = noun_class(word)
        if name is None:
            continue
        first, colour_at = position, None
        while first > 0 and (colour_of(words[first - 1]) or size_of(words[first - 1])):
            first -= 1
            if colour_at is None and colour_of(words[first]):
                colour_at = first
        if first > 0 and words[first - 1] in ("a", "an", "the"):
            first -= 1
        colour = None if colour_at is None else colour_of(words[colour_at])
        found.append(Mention(name, colour, first, position, colour_at))
    return found


def claims(words: Sequence[str]) -> list[Claim]:
    """Return what a caption says about positions, in order.

    Between two neighbouring mentions, a relation phrase directly before the second relates the
    first to it. A side phrase belongs to the mention before it; in a caption with a side phrase
    before its first mention ("on the left a dog and on the right a cat"), to the one after it.
    """
    named = mentions(words)
    starts = [0, *(mention.noun + 1 for mention in named)]
    stops = [*(mention.first for mention in named), len(words)]
    gaps = [tuple(words[start:stop]) for start, stop in zip(starts, stops, strict=True)]
    ahead = bool(named) and _side(gaps[0]) is not None
    found = []
    for index, mention in enumerate(named):
        if ahead:
            found += _side_claims(mention, gaps[index], starts[index])
        between, start = gaps[index + 1], starts[index + 1]
        related = next((p for p in _PHRASES if between[-len(p[0]) :] == p[0]), None)
        if related is not None and index + 1 < len(named):
            phrase, relation = related
            positions = tuple(range(stops[index + 1] - len(phrase), stops[index + 1]))
            found.append(Claim(mention, relation, named[index + 1], positions))
            between = between[: -len(phrase)]
        if not ahead:
            found += _side_claims(mention, between, start)
    return found


def _side_claims(mention: Mention, gap: tuple[str, ...], start: int) -> list[Claim]:
    """Return the claim that the first side phrase of a gap makes about a mention."""
    side = _side(gap)
    if side is None:
        return []
    name, offset, length = side
    positions = tuple(range(start + offset, start + offset + length))
    return [Claim(mention, name, None, positions)]


def _side(gap: tuple[str, ...]) -> tuple[str, int, int] | None:
    """Return name, place and length of the first side phrase among some words."""
    for offset in range(len(gap)):
        for phrase, name in _SIDE_PHRASES:
            if gap[offset : offset + len(phrase)] == phrase:
                return name, offset, len(phrase)
    return None


def check_relation(recipe: Recipe, claim: Claim) -> bool | None:
    """Whether a claim is true of a scene; None if the scene lacks one of the objects."""
    index = {thing.name: position for position, thing in enumerate(recipe.objects)}
    subject = index.get(claim.subject.name)
    if subject is None:
        return None
    if claim.object is None:
        return side_holds(recipe, subject, claim.relation)
    second = index.get(claim.object.name)
    if second is None or second == subject:
        return None
    return holds(recipe, subject, claim.relation, second)
