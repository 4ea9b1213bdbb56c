"""Which objects the words of a caption are about."""

from __future__ import annotations

import pytest

from capscope.benchmarks.depiction import category_words
from capscope.data.naming import coco_words
from capscope.explain.words import scene_words


def read(text: str) -> dict[str, tuple[str, ...]]:
    words = text.split()
    return {f"{words[w.position]}/{w.kind}": w.about for w in scene_words(words)}


def test_adjectives_and_verbs_are_about_their_noun() -> None:
    assert read("a small red puppy is sitting on the beach at night") == {
        "small/size": ("dog",),
        "red/colour": ("dog",),
        "puppy/noun": ("dog",),
        "sitting/verb": ("dog",),
        "beach/place": (),
        "night/weather": (),
    }


def test_a_relation_is_about_both_objects_and_a_side_about_one() -> None:
    found = read("a cat to the left of a blue ball on the right")
    assert found["left/relation"] == ("cat", "ball")
    assert found["right/relation"] == ("ball",)
    assert found["blue/colour"] == ("ball",)


def test_words_say_what_they_claim() -> None:
    small, red, dog = scene_words(["a", "tiny", "crimson", "dog"])
    assert (small.size, small.colour) == ("small", None)
    assert (red.size, red.colour) == (None, "red")
    assert (dog.size, dog.colour) == (None, None)


def test_function_words_are_about_nothing() -> None:
    assert scene_words(["there", "is", "a", "picture", "of", "the", "and", "with"]) == []


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("two dogs", [(1, "dog")]),
        ("the woman feeds a horse", [(1, "person"), (4, "horse")]),
        ("a hot dog", [(2, "hot dog")]),
        ("nothing here", []),
    ],
)
def test_words_name_categories_of_boxes_by_their_synonyms(
    text: str, about: list[tuple[int, str]]
) -> None:
    found = category_words(coco_words(), text.split())
    assert [(word.position, *word.about) for word in found] == about
