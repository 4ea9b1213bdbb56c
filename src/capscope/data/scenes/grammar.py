"""References: a grammar that describes a scene in varied words; `parse` reads all it writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capscope.data.scenes.lexicon import (
    CLASSES,
    COLOURS,
    PLACES,
    RELATIONS,
    SIDES,
    SIZES,
    TIMES,
    WEATHER,
)
from capscope.data.scenes.recipe import Recipe, pick
from capscope.data.scenes.relations import clear_relations, clear_side

REFERENCES = 5
"""Of each scene."""
LONGEST = 24
"""Words; longer drafts lose opening and remark, and if need be the place."""

_OPENINGS = (
    ("", 0.87), ("there is", 0.04), ("a picture of", 0.02), ("a photo of", 0.02),
    ("an image of", 0.02), ("we see", 0.015), ("this scene shows", 0.015),
)  # fmt: skip
_RELATION_WEIGHTS = {
    "left": 1.0, "right": 1.0, "above": 0.7, "below": 0.7, "front": 1.0, "behind": 1.0, "near": 0.7,
}  # fmt: skip


def write_references(recipe: Recipe, sizes: Sequence[int], rng: np.random.Generator) -> list[str]:
    """Return `REFERENCES` different references of a scene, lower case, without punctuation.

    Parameters
    ----------
    recipe : Recipe
    sizes : sequence of int
        Visible pixels of each object; of more than three, the larger ones are named.
    rng : numpy Generator
    """
    references: list[str] = []
    for attempt in range(20 * REFERENCES):
        text = " ".join(_Writer(recipe, sizes, rng).sentence())
        if text not in references or attempt >= 10 * REFERENCES:
            references.append(text)
        if len(references) == REFERENCES:
            break
    return references


class _Writer:
    """Writes one reference."""

    def __init__(self, recipe: Recipe, sizes: Sequence[int], rng: np.random.Generator) -> None:
        self.recipe = recipe
        self.rng = rng
        self.named = self._choose(sizes)

    def sentence(self) -> list[str]:
        """Return the words of one reference."""
        opening = pick(self.rng, _OPENINGS).split()
        scene, finite = self._scene(allow_finite=not opening)
        place = self._phrase(PLACES[self.recipe.place]) if self._chance(0.86) else []
        remark = self._remark() if self._chance(0.22) else []
        if len(opening) + len(scene) + len(place) + len(remark) > LONGEST:
            opening, remark = [], []
        if len(scene) + len(place) > LONGEST:
            place = []
        if place and not finite and not opening and self._chance(0.04):
            return [*place, *scene, *remark]
        return [*opening, *scene, *place, *remark]

    def _choose(self, sizes: Sequence[int]) -> list[int]:
        """Choose the objects to name: all of up to three, the larger ones of more.

        They are named from left to right, sometimes from right to left. A captioner can only do
        the same by looking where the objects are, at a moment when it looks at them anyway.
        """
        weights = np.sqrt(np.asarray(sizes, float)) * self.rng.uniform(0.9, 1.1, len(sizes))
        most = 3 if self._chance(0.88) else 2
        chosen = [int(i) for i in np.argsort(-weights)][:most]
        chosen.sort(key=lambda index: self.recipe.objects[index].x)
        return chosen[::-1] if self._chance(0.2) else chosen

    def _scene(self, *, allow_finite: bool) -> tuple[list[str], bool]:
        """Return the words about the objects, and whether they hold a finite verb."""
        first = self.named[0]
        if len(self.named) == 1:
            verb, finite = self._verb(first, allow_finite)
            return [*self._noun_phrase(first), *verb], finite
        second, rest = self.named[1], self.named[2:]
        sides = [clear_side(self.recipe, index) for index in self.named]
        distinct = None not in sides and len(set(sides)) == len(sides)
        relations = clear_relations(self.recipe, first, second)
        form = pick(
            self.rng,
            (
                ("relation", 0.56 if relations else 0.0),
                ("sides", 0.3 if distinct else 0.0),
                ("list", 0.14),
            ),
        )
        if form == "list":
            return self._listing([self._noun_phrase(index) for index in self.named]), False
        if form == "sides":
            return self._sides([str(side) for side in sides]), False
        weights = [(relation, _RELATION_WEIGHTS[relation]) for relation in relations]
        relation = self._phrase(RELATIONS[pick(self.rng, weights)])
        verb, finite = self._verb(first, allow_finite) if self._chance(0.35) else ([], False)
        words = [*self._noun_phrase(first), *verb, *relation, *self._noun_phrase(second)]
        for index in rest:
            words += ["and" if self._chance(0.85) else "with", *self._noun_phrase(index)]
        return words, finite

    def _sides(self, sides: Sequence[str]) -> list[str]:
        """Name every object with its side of the image, before or after the noun."""
        ahead = self._chance(0.5)
        parts = []
        for index, side in zip(self.named, sides, strict=True):
            phrase, noun = self._phrase(SIDES[side]), self._noun_phrase(index)
            parts.append([*phrase, *noun] if ahead else [*noun, *phrase])
        return self._listing(parts)

    def _listing(self, parts: Sequence[list[str]]) -> list[str]:
        """Join parts by "and"; the tokenizer drops the commas of a longer list."""
        *before, last = parts
        joint = "and" if self._chance(0.95) else "with"
        return [*(word for part in before for word in part), joint, *last]

    def _noun_phrase(self, index: int) -> list[str]:
        thing = self.recipe.objects[index]
        words = []
        if thing.size != "medium" and self._chance(0.6):
            words += self._phrase(SIZES[thing.size][1])
        if self._chance(0.97):
            words += self._phrase(COLOURS[thing.colour][1], usual=0.95)
        words += self._phrase(CLASSES[thing.name].names, usual=0.86)
        return ["an" if words[0][0] in "aeiou" else "a", *words]

    def _verb(self, index: int, allow_finite: bool) -> tuple[list[str], bool]:
        thing = self.recipe.objects[index]
        finite, participle, *others = CLASSES[thing.name].poses[thing.style]
        if self._chance(0.15):
            finite, participle = others
        use_finite = allow_finite and self._chance(0.6)
        return (finite if use_finite else participle).split(), use_finite

    def _remark(self) -> list[str]:
        """Remark on the time of day or, outdoors, on the weather."""
        day = self.recipe.time == "day"
        if self.recipe.weather is not None and (day or self._chance(0.5)):
            phrases = WEATHER[self.recipe.weather]
            return self._phrase([p for p in phrases if day or not ("day" in p or "sun" in p)])
        return self._phrase(TIMES[self.recipe.time])

    def _phrase(self, phrases: Sequence[str], usual: float = 0.75) -> list[str]:
        """Choose a phrase: the first one with probability `usual`."""
        index = 0
        if len(phrases) > 1 and not self._chance(usual):
            index = 1 + int(self.rng.integers(len(phrases) - 1))
        return phrases[index].split()

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)
