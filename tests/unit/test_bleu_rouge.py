"""BLEU and ROUGE-L against pycocoevalcap on random and adversarial captions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.rouge.rouge import Rouge

from capscope.metrics.bleu import bleu
from capscope.metrics.cider import CiderD, cider_d
from capscope.metrics.rouge import common_subsequence, rouge_l

vocabulary = ["a", "the", "red", "dog", "cat", "on"]
words = st.lists(st.sampled_from(vocabulary), max_size=12)
image = st.tuples(words, st.lists(words, min_size=1, max_size=4))


def as_text(images):
    references = {i: [" ".join(ref) for ref in refs] for i, (_, refs) in enumerate(images)}
    return references, {i: [" ".join(candidate)] for i, (candidate, _) in enumerate(images)}


@settings(max_examples=200, deadline=None)
@given(st.lists(image, min_size=1, max_size=6))
def test_bleu_equals_pycocoevalcap_on_random_captions(images):
    corpus, per_image = Bleu(4).compute_score(*as_text(images), verbose=0)
    ours, ours_per_image = bleu([refs for _, refs in images], [c for c, _ in images])
    np.testing.assert_allclose(ours, corpus, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours_per_image, per_image, rtol=0, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.lists(image, min_size=1, max_size=6))
def test_rouge_equals_pycocoevalcap_on_random_captions(images):
    corpus, per_image = Rouge().compute_score(*as_text(images))
    ours, ours_per_image = rouge_l([refs for _, refs in images], [c for c, _ in images])
    assert ours == pytest.approx(corpus, abs=1e-12)
    np.testing.assert_allclose(ours_per_image, per_image, rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.text("abc", max_size=150), st.text("abc", max_size=150))
def test_the_common_subsequence_in_bits_equals_the_table_of_the_textbook(first, second):
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, letter in enumerate(first):
        for j, other in enumerate(second):
            if letter == other:
                lengths[i + 1][j + 1] = lengths[i][j] + 1
            else:
                lengths[i + 1][j + 1] = max(lengths[i][j + 1], lengths[i + 1][j])
    assert common_subsequence(first, second) == lengths[-1][-1]


def test_captions_with_unseen_words_and_long_repeats_score_as_the_original_does():
    images = [
        (["zebra"] * 70, [["zebra"] * 3, ["a"] * 80]),
        (["x", "y", "x", "y", "x"], [["x", "y"], ["a"]]),
        ([], [["a", "dog"]]),
        ([], [[]]),
        (["a"], [[], ["a", "a", "a", "a", "a"]]),
    ]
    references, candidates = [refs for _, refs in images], [c for c, _ in images]
    np.testing.assert_allclose(
        bleu(references, candidates)[1], Bleu(4).compute_score(*as_text(images), verbose=0)[1]
    )
    rouge = Rouge().compute_score(*as_text(images))[1]
    np.testing.assert_allclose(rouge_l(references, candidates)[1], rouge)


def test_the_number_of_captions_must_be_the_number_of_images():
    for metric in (bleu, cider_d, rouge_l):
        with pytest.raises(ValueError, match=r"images but|shorter|longer"):
            metric([[["a"]], [["b"]]], [["a"]])


def test_metrics_share_the_numbered_references():
    references, candidates = [[["a", "dog"]], [["a", "cat"]]], [["a", "dog"], ["a", "dog"]]
    scorer = CiderD(references)
    assert scorer.ngrams.index.size == 5
    np.testing.assert_array_equal(scorer.score(candidates), cider_d(references, candidates)[1])
