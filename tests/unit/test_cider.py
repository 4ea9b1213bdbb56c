"""CIDEr-D against pycocoevalcap, and against a twin written from the equation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from capscope.metrics.cider import CiderD, cider_d
from capscope.metrics.frequencies import DocumentFrequencies

words = st.lists(
    st.sampled_from(["a", "the", "red", "blue", "dog", "cat", "on", "near"]), max_size=9
)
image = st.tuples(words, st.lists(words, min_size=1, max_size=4))


def ngrams_of(caption, order):
    return [tuple(caption[i : i + order]) for i in range(len(caption) - order + 1)]


def slow_cider_d(references, candidates, frequencies, images):
    """CIDEr-D, one pair of captions after the other."""

    def vector(caption, order):
        counts = Counter(ngrams_of(caption, order))
        return {
            g: n * (math.log(images) - math.log(max(1.0, frequencies.get(g, 0.0))))
            for g, n in counts.items()
        }

    scores = []
    for image_references, candidate in zip(references, candidates, strict=True):
        total = 0.0
        for reference in image_references:
            delta = max(0, len(candidate) - 1) - max(0, len(reference) - 1)
            for order in (1, 2, 3, 4):
                h, r = vector(candidate, order), vector(reference, order)
                dot = sum(min(h[g], r[g]) * r[g] for g in h if g in r)
                norm = math.hypot(*h.values()) * math.hypot(*r.values())
                similarity = dot / norm if norm else dot
                total += similarity * math.exp(-(delta**2) / 72) / 4
        scores.append(10 * total / len(image_references))
    return scores


@settings(max_examples=200, deadline=None)
@given(st.lists(image, min_size=1, max_size=6))
def test_cider_d_equals_pycocoevalcap_on_random_captions(images):
    candidates = [candidate for candidate, _ in images]
    references = [refs for _, refs in images]
    if not any(word for refs in references for ref in refs for word in ref):
        assert cider_d(references, candidates)[0] == 0.0  # the original raises ValueError
        return
    refs = {i: [" ".join(r) for r in references[i]] for i in range(len(images))}
    results = {i: [" ".join(candidates[i])] for i in range(len(images))}
    corpus, per_image = Cider().compute_score(refs, results)
    ours, ours_per_image = cider_d(references, candidates)
    assert ours == pytest.approx(corpus, abs=1e-12)
    np.testing.assert_allclose(ours_per_image, per_image, rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(image, min_size=1, max_size=5), st.lists(image, max_size=5), st.integers(1, 9))
def test_cider_d_with_frequencies_of_another_corpus_equals_its_slow_twin(images, other, extra):
    candidates = [candidate for candidate, _ in images]
    references = [refs for _, refs in images]
    counted = DocumentFrequencies.of([refs for _, refs in other])
    frequencies = DocumentFrequencies(
        {gram: count * extra for gram, count in counted.counts.items()}, max(1, len(other))
    )
    expected = slow_cider_d(references, candidates, frequencies.counts, frequencies.images)
    _, per_image = cider_d(references, candidates, frequencies)
    np.testing.assert_allclose(per_image, expected, rtol=0, atol=1e-11)


def test_captions_as_word_ids_score_as_captions_as_strings():
    references = [[["1", "2", "3"], ["2", "3"]], [["4", "2"]]]
    candidates = [["1", "2", "9"], ["4", "2"]]
    as_ids = [[[int(w) for w in ref] for ref in refs] for refs in references]
    expected = cider_d(references, candidates)[1]
    scores = cider_d(as_ids, [[int(w) for w in c] for c in candidates])[1]
    np.testing.assert_array_equal(scores, expected)


def test_several_captions_of_an_image_score_as_if_each_were_alone():
    references = [[["a", "dog", "runs"]], [["a", "cat", "sits"], ["the", "cat"]]]
    scorer = CiderD(references)
    captions = [["a", "cat"], ["a", "dog", "runs"], ["the", "cat", "sits"], []]
    together = scorer.score(captions, images=[1, 0, 1, 0])
    alone = [scorer.score([c], [i])[0] for c, i in zip(captions, [1, 0, 1, 0], strict=True)]
    np.testing.assert_array_equal(together, alone)


def test_scoring_leaves_no_trace_in_the_scorer():
    scorer = CiderD([[["a", "dog"]], [["a", "cat"]]])
    before = scorer.score([["a", "dog"], ["a", "cat"]])
    scorer.score([["unseen", "words", "unseen"], ["unseen"]])
    np.testing.assert_array_equal(scorer.score([["a", "dog"], ["a", "cat"]]), before)


def test_an_image_without_references_is_refused():
    with pytest.raises(ValueError, match="at least one reference"):
        CiderD([[["a"]], []])


def test_no_captions_give_no_scores():
    assert cider_d([], [])[0] == 0.0
