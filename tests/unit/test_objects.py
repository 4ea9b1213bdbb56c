"""Objects, colours and positions that captions name."""

from __future__ import annotations

import math

import numpy as np
import pytest

from capscope.data.naming import coco_words, scene_words
from capscope.data.scenes.recipe import Recipe, SceneObject
from capscope.metrics.objects import object_measures
from capscope.metrics.scenes import scene_measures


def thing(name, colour, x):
    return SceneObject(name, colour, "medium", x, 100, 30, 30, 0, False, False, 0)


SCENE = Recipe(
    128, "meadow", "day", "clear", 1, (thing("dog", "red", 30), thing("car", "blue", 95))
)


def test_named_classes_come_in_order_with_synonyms_and_plurals():
    words = "two puppies chase a cat and a bunny with cars".split()  # noqa: SIM905
    assert scene_words().named(words) == ["dog", "cat", "rabbit", "car"]


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a hot dog on a plate", ["hot dog"]),
        ("two dogs beside a fire hydrant", ["dog", "fire hydrant"]),
        ("women riding horses on a baseball field", ["person", "horse"]),
        ("a man hits a baseball with a baseball bat", ["person", "sports ball", "baseball bat"]),
        ("a glass bus stop", []),
        ("knives and wine glasses on the dining tables", ["knife", "wine glass", "dining table"]),
        ("", []),
    ],
)
def test_the_longest_phrase_decides_for_coco_categories(caption, named):
    assert coco_words().named(caption.split()) == named


def test_coco_words_cover_the_80_categories():
    assert len(coco_words().classes) == 80


def test_object_measures_follow_their_definitions():
    references = [
        [text.split() for text in ("a dog", "a dog and a cat", "a dog and a ball", "a dog", "so")],
        [["a", "car"], ["a", "car"], ["nothing"], ["nothing"], ["nothing"]],
        [["nothing"]] * 5,
    ]
    boxes = [{"dog", "cat", "tree"}, {"car"}, set()]
    captions = [
        ["a", "dog", "and", "a", "kitten", "near", "a", "horse"],
        ["a", "bus", "bus"],
        ["empty"],
    ]
    measures = object_measures(scene_words(), boxes, references, captions)
    assert measures["object_precision"].value == pytest.approx(2 / 4)  # dog, cat; horse, bus
    assert measures["object_recall"].value == 1.0  # only the dog is in 3 of 5 references
    assert measures["object_f1"].value == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert measures["CHAIR-i"].value == pytest.approx(3 / 5)
    assert measures["CHAIR-s"].value == pytest.approx(2 / 3)
    assert measures["object_f1"].per_image[1] == 0.0
    assert math.isnan(measures["object_f1"].per_image[2])


def test_what_only_a_reference_names_counts_as_depicted():
    measures = object_measures(scene_words(), [set()], [[["a", "kite"]]], [["a", "kite"]])
    assert measures["CHAIR-s"].value == 0.0
    assert measures["object_precision"].value == 1.0


@pytest.mark.parametrize(
    ("caption", "colour", "left_right"),
    [
        ("a red dog to the left of a blue car", 1.0, 1.0),
        ("a red dog to the right of a green car", 0.5, 0.0),
        ("a dog on the left and a car on the right", np.nan, 1.0),
        ("a crimson puppy on the right", 1.0, 0.0),
        ("a red dog to the left of a purple kite", 1.0, np.nan),
        ("", np.nan, np.nan),
    ],
)
def test_colours_and_sides_are_checked_against_the_scene(caption, colour, left_right):
    measures = scene_measures([SCENE], [caption.split()])
    np.testing.assert_array_equal(measures["colour_accuracy"].value, colour)
    np.testing.assert_array_equal(measures["left_right_accuracy"].value, left_right)


def test_chance_of_left_and_right_is_a_coin():
    measures = scene_measures([SCENE], [["a", "dog", "to", "the", "left", "of", "a", "car"]])
    assert measures["left_right_accuracy"].chance == 0.5
    assert scene_measures([SCENE], [[]])["left_right_accuracy"].chance is None
