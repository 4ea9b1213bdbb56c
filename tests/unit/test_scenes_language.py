"""References and the parser that reads captions: a round trip, and claims by hand."""

from collections import Counter

import numpy as np
import pytest

from capscope.data.scenes.grammar import LONGEST, write_references
from capscope.data.scenes.lexicon import (
    CLASSES,
    COLOURS,
    KINDS,
    RELATIONS,
    colour_of,
    noun_class,
    size_of,
    word_kind,
)
from capscope.data.scenes.parse import Claim, Mention, check_relation, claims, mentions
from capscope.data.scenes.recipe import Recipe, SceneObject, sample_recipe

OPPOSITE = {
    **{"left": "right", "right": "left", "above": "below", "below": "above"},
    **{"front": "behind", "behind": "front", "near": "near"},
}


def thing(name: str, x: int, y: int, colour: str = "red", side: int = 20) -> SceneObject:
    return SceneObject(name, colour, "medium", x, y, side, side, 0, False, False, 0)


def samples(count: int = 400) -> list[tuple[Recipe, list[list[str]]]]:
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(count):
        recipe = sample_recipe(rng, 128, 0.85)
        sizes = [part.width * part.height for part in recipe.objects]
        texts = write_references(recipe, sizes, rng)
        drawn.append((recipe, [text.split() for text in texts]))
    return drawn


SAMPLES = samples()


def test_five_different_references_of_bounded_length() -> None:
    for _, references in SAMPLES:
        assert len(references) == 5
        assert all(0 < len(words) <= LONGEST for words in references)
    different = sum(len({tuple(words) for words in texts}) == 5 for _, texts in SAMPLES)
    assert different == len(SAMPLES)


def test_the_vocabulary_is_rich_even_without_rare_words() -> None:
    counts = Counter(word for _, texts in SAMPLES for words in texts for word in words)
    assert sum(count >= 3 for count in counts.values()) >= 150


def test_parsed_mentions_are_the_objects_of_the_scene_in_their_colours() -> None:
    for recipe, texts in SAMPLES:
        colours = {part.name: part.colour for part in recipe.objects}
        for words in texts:
            named = mentions(words)
            assert len({mention.name for mention in named}) == len(named) >= 1
            assert len(named) >= min(2, len(colours))
            for mention in named:
                assert mention.colour in (colours[mention.name], None)
                assert noun_class(words[mention.noun]) == mention.name


def test_up_to_three_objects_are_usually_all_named() -> None:
    complete = [
        len(mentions(words)) == len(recipe.objects)
        for recipe, texts in SAMPLES
        for words in texts
        if len(recipe.objects) <= 3
    ]
    assert np.mean(complete) > 0.9


def test_every_claim_of_a_reference_is_true_and_every_relation_is_parsed() -> None:
    found: Counter[str] = Counter()
    for recipe, texts in SAMPLES:
        for words in texts:
            said = claims(words)
            assert all(check_relation(recipe, claim) is True for claim in said)
            found.update(claim.relation for claim in said)
            telling = {"left", "right", "behind", "front", "beside", "above", "below", "middle"}
            if telling & set(words):
                assert said
    assert set(found) == {*RELATIONS, "middle"}


def test_opposite_claims_are_false() -> None:
    checked = 0
    for recipe, texts in SAMPLES:
        for words in texts:
            for claim in claims(words):
                if claim.object is not None and claim.relation != "near":
                    turned = Claim(claim.subject, OPPOSITE[claim.relation], claim.object, ())
                    assert check_relation(recipe, turned) is False
                    checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red dog to the left of a blue cat", [("dog", "left", "cat")]),
        ("a red dog stands left of a cat on the beach", [("dog", "left", "cat")]),
        ("a dog on the left side of a cat", [("dog", "left", "cat")]),
        ("a dog on the left side and a cat", [("dog", "left", None)]),
        ("a cat in the middle", [("cat", "middle", None)]),
        ("a dog at the right a cat on a road", [("dog", "right", None)]),
        ("a ball lies in front of a dog with a cat", [("ball", "front", "dog")]),
        ("a dog and a cat by the sea", []),
        ("a dog in the snow next to a big cat", [("dog", "near", "cat")]),
        ("left of", []),
        ("on the left a dog and a cat on a road", [("dog", "left", None)]),
        ("at the right a dog a cat", [("dog", "right", None)]),
    ],
)  # fmt: skip
def test_claims_are_read_from_captions(
    caption: str, expected: list[tuple[str, str, str | None]]
) -> None:
    said = claims(caption.split())
    assert [(c.subject.name, c.relation, c.object and c.object.name) for c in said] == expected
    words = caption.split()
    for claim in said:
        assert {word_kind(words[k]) for k in claim.words} <= {"relation", "other"}


def test_the_colour_of_a_noun_stands_directly_before_it() -> None:
    words = ["a", "scarlet", "small", "puppy", "and", "a", "ball", "with", "a", "big", "blue"]
    assert mentions(words) == [Mention("dog", "red", 0, 3, 1), Mention("ball", None, 5, 6)]


def test_claims_about_absent_objects_are_undecided() -> None:
    recipe = Recipe(128, "room", "day", None, 1, (thing("dog", 30, 100), thing("cat", 90, 110)))
    absent = claims(["a", "dog", "left", "of", "a", "ball"])
    wrong = claims(["a", "dog", "right", "of", "a", "cat"])
    assert check_relation(recipe, absent[0]) is None
    assert check_relation(recipe, wrong[0]) is False
    assert check_relation(recipe, claims(["a", "bus", "on", "the", "left"])[0]) is None
    assert check_relation(recipe, claims(["a", "dog", "on", "the", "left"])[0]) is True


def test_words_have_one_kind_and_name_one_thing() -> None:
    for name, entry in CLASSES.items():
        for word in entry.names:
            assert (noun_class(word), word_kind(word), colour_of(word)) == (name, "noun", None)
    for colour, (_, words) in COLOURS.items():
        assert all(colour_of(word) == colour and word_kind(word) == "colour" for word in words)
    assert size_of("tiny") == "small"
    assert size_of("dog") is None
    expected = {
        "beach": "place",
        "left": "relation",
        "rain": "weather",
        "sits": "verb",
        "a": "other",
    }
    assert {word: word_kind(word) for word in expected} == expected
    assert word_kind("unknown") == "other"
    assert {word_kind(w) for _, texts in SAMPLES for t in texts for w in t} == set(KINDS)


def test_no_reference_speaks_of_day_or_sun_after_dark() -> None:
    nights = [texts for recipe, texts in SAMPLES if recipe.time == "night"]
    assert nights
    said = {word for texts in nights for text in texts for word in text}
    assert not {"day", "sunny", "sunshine", "daylight"} & said
