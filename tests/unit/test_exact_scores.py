"""BLEU, ROUGE-L and CIDEr equal pycocoevalcap's on thousands of random and adversarial sets."""

from __future__ import annotations

import random

import numpy as np
import pytest

from capscope.metrics.evaluate import CaptionScorer
from capscope.metrics.original import original_scores

TOLERANCE = 1e-12
FEW = ["a", "b"]
WORDS = [
    *("a", "the", "of", "red", "blue", "dog", "cat", "bus", "man", "woman"),
    *("runs", "sits", "on", "near", "under", "two", "three", "small", "big"),
]
ODD = [
    *WORDS[:6],
    "22\u00a03/4",
    "\u3000",
    "-lrb-",
    "-",
    "'s",
    "naïve",
    "\U0001f600",
    "0",
    "7",
    "...",
]
BLANKS = [" ", " ", " ", "  ", "\t", "\u00a0", "\u2003", " \n", "\x1c", "\x85"]


def sentence(rng, words, longest, blanks=(" ",)):
    said = [rng.choice(words) for _ in range(rng.randint(0, longest))]
    text = "".join(word + rng.choice(blanks) for word in said)
    return text if len(blanks) > 1 and rng.random() < 0.5 else text.strip()


def vary(rng, text, words):
    """Change, drop, double or shuffle some words of a text."""
    said = text.split(" ")
    for _ in range(rng.randint(0, 3)):
        place = rng.randrange(len(said))
        change = rng.randrange(4)
        if change == 0:
            said[place] = rng.choice(words)
        elif change == 1 and len(said) > 1:
            del said[place]
        elif change == 2:
            said.insert(place, said[place])
        else:
            rng.shuffle(said)
    return " ".join(said)


def draw(rng):
    """Draw a set: the references of its images, and a caption for each."""
    kind = rng.randrange(8)
    words = {0: FEW, 1: ["a"], 2: ODD}.get(kind, WORDS)
    blanks = BLANKS if kind in (2, 3) else (" ",)
    longest = 150 if kind == 4 and rng.random() < 0.1 else rng.choice([2, 5, 12])
    images = 1 if kind == 5 else rng.randint(1, 6)
    references = [
        [sentence(rng, words, longest, blanks) for _ in range(rng.randint(1, 5))]
        for _ in range(images)
    ]
    if kind == 6:  # the same references for all images: all weights 0
        references = [references[0]] * images
    captions = [
        sentence(rng, words, longest, blanks)
        if rng.random() < 0.3
        else vary(rng, rng.choice(texts), words)
        for texts in references
    ]
    if kind == 7 and rng.random() < 0.3:
        captions[rng.randrange(images)] = ""
    return references, captions


@pytest.mark.parametrize("sets", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_scores_and_scores_per_image_equal_pycocoevalcap_on_random_and_adversarial_sets(sets):
    rng = random.Random(sets)
    compared = dict.fromkeys(["BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr"], 0)
    for number in range(sets):
        references, captions = draw(rng)
        expected = original_scores(references, captions)
        measures = CaptionScorer(references).measures(captions)
        for name, (value, per_image) in expected.items():
            where = f"{name} of set {number}: {references} {captions}"
            assert abs(measures[name].value - value) <= TOLERANCE, where
            assert np.abs(measures[name].per_image - per_image).max() <= TOLERANCE, where
            if name in compared:
                compared[name] += 1
        if "CIDEr" not in expected:  # the original raises: no reference has a word
            assert measures["CIDEr"].value == 0.0
    assert min(compared.values()) > 0.8 * sets


def test_the_drawn_sets_are_as_adversarial_as_they_should_be():
    rng = random.Random(1)
    drawn = [draw(rng) for _ in range(2000)]
    groups = [group for references, captions in drawn for group in (*references, captions)]
    texts = [text for group in groups for text in group]
    assert any(len(text.split()) > 64 for text in texts)
    assert any(text == "" for text in texts)
    assert any(text != text.strip() for text in texts)
    assert any(len(text.split()) != len(text.split(" ")) for text in texts if text)
    assert any(len(references) == 1 for references, _ in drawn)
    assert any(texts.count(text) > 50 for text in texts[:50])
