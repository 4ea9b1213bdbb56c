"""Rewards of drawn captions against a slow CIDEr-D, and what its conventions change."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from capscope.metrics.bleu import bleu
from capscope.training.rewards import CaptionReward

START, END = 8, 9
REFERENCES = [
    [[1, 2, 3], [1, 2, 3, 4], [2, 3]],
    [[4, 5], [4, 5, 6, 1], [4, 6]],
    [[6, 6, 1, 2], [1, 6]],
]
CAPTIONS = [
    [1, 2, 3, END, 0],
    [1, 2, 1, 2, 1],
    [4, 5, END, 0, 0],
    [END, 0, 0, 0, 0],
    [6, 1, 6, END],
]
IMAGES = [0, 0, 1, 2, 2]


def slow_cider_d(caption, references, documents):
    """CIDEr-D of one caption from its equations (Vedantam et al. 2015); documents give the df."""
    total = 0.0
    for n in range(1, 5):

        def ngrams(words, n=n):
            return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

        def vector(words, ngrams=ngrams):
            found = {}
            for ngram, count in ngrams(words).items():
                df = sum(any(ngram in ngrams(ref) for ref in document) for document in documents)
                found[ngram] = count * (math.log(len(documents)) - math.log(max(1, df)))
            return found

        ours = vector(caption)
        norm = math.sqrt(sum(v * v for v in ours.values()))
        for reference in references:
            theirs = vector(reference)
            dot = sum(min(v, theirs.get(g, 0.0)) * theirs.get(g, 0.0) for g, v in ours.items())
            norms = norm * math.sqrt(sum(v * v for v in theirs.values()))
            delta = max(len(caption) - 1, 0) - max(len(reference) - 1, 0)
            total += (dot / norms if norms else 0.0) * math.exp(-(delta**2) / 72)
    return 10 * total / 4 / len(references)


def spoken(caption, with_end):
    words = [*itertools.takewhile(lambda word: word != END, caption)]
    return [*words, END] if with_end and END in caption else words


@pytest.mark.parametrize("frequencies", ["training", "captions", "batch"])
@pytest.mark.parametrize("end_token", ["both", "references", "none"])
def test_rewards_follow_the_equation_under_every_convention(frequencies, end_token):
    reward = CaptionReward(
        REFERENCES, start=START, end=END, frequencies=frequencies, end_token=end_token
    )
    closing = [] if end_token == "none" else [END]
    framed = [[[*words, *closing] for words in image] for image in REFERENCES]
    documents = {
        "training": framed,
        "captions": [[words] for image in framed for words in image],
        "batch": [framed[image] for image in IMAGES],
    }[frequencies]
    expected = [
        slow_cider_d(spoken(caption, end_token == "both"), framed[image], documents)
        for caption, image in zip(CAPTIONS, IMAGES, strict=True)
    ]
    assert reward.score(CAPTIONS, IMAGES) == pytest.approx(expected, abs=1e-9)
    assert expected[0] > 0


def test_bleu_can_be_part_of_the_reward():
    settings = {"start": START, "end": END, "end_token": "none"}
    alone = CaptionReward(REFERENCES, **settings)
    mixed = CaptionReward(REFERENCES, **settings, cider_weight=0.5, bleu_weight=2.0)
    captions = [spoken(caption, False) for caption in CAPTIONS]
    expected = bleu([REFERENCES[image] for image in IMAGES], captions)[1][3]
    found = mixed.score(CAPTIONS, IMAGES)
    assert found == pytest.approx(0.5 * alone.score(CAPTIONS, IMAGES) + 2 * expected)


def test_breaking_off_pays_only_where_the_end_is_no_word():
    """`1 2 3` is a whole reference; cut to `1 2`, it lacks what the end closes."""
    whole, broken = [1, 2, 3, END], [1, 2, END]
    gains = {}
    for end_token in ("both", "none"):
        reward = CaptionReward(REFERENCES, start=START, end=END, end_token=end_token)
        first, second = reward.score([whole, broken], [0, 0])
        gains[end_token] = second / first
    assert gains["both"] < gains["none"] < 1


def test_an_empty_caption_is_worth_nothing_without_an_end_and_little_with_it():
    for end_token in ("both", "references", "none"):
        reward = CaptionReward(REFERENCES, start=START, end=END, end_token=end_token)
        (score,) = reward.score([[END, 0]], [1])
        assert np.isfinite(score)
        assert 0 <= score < 0.5


def test_the_end_may_share_its_id_with_padding():
    reward = CaptionReward(REFERENCES, start=0, end=0)
    other = CaptionReward(REFERENCES, start=START, end=END)
    captions = [[0 if word == END else word for word in caption] for caption in CAPTIONS]
    assert reward.score(captions, IMAGES) == pytest.approx(other.score(CAPTIONS, IMAGES))
