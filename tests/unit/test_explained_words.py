"""Which objects the words of a caption are about."""

from __future__ import annotations

import pytest

from capscope.explain.words import category_words, scene_words


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
        ("two dogs", [("dog",)]),
        ("the buses", [("bus",)]),
        ("a table", [("dining table",)]),
        ("a bear", [("bear", "teddy bear")]),
        ("nothing here", []),
        ("a glass", []),
    ],
)
def test_words_name_box_categories_in_singular_and_plural(
    text: str, about: list[tuple[str, ...]]
) -> None:
    categories = ["bear", "bus", "dining table", "dog", "teddy bear"]
    assert [word.about for word in category_words(text.split(), categories)] == about
