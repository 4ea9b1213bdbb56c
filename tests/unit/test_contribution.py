"""Sources of words: shares by kind and place of a word, from what explainers keep account of."""

from pathlib import Path

import numpy as np
import pytest
import torch

from capscope.benchmarks.contribution import entropy, kinds_of, measure_contributions
from capscope.data.vocabulary import Vocabulary
from capscope.explain.explanation import Explanation
from capscope.explain.store import Captions, RelevanceStore, write_relevance

WORDS = Vocabulary(("<pad>", "a", "red", "dog", "on"), pad=0, start=None, end=0, unk=None)


def test_shares_are_of_what_words_start_with(tmp_path: Path) -> None:
    account = {
        "start": torch.tensor([[1.0, -2.0]]),
        "grid": torch.tensor([[0.6, -0.5]]),
        "words": torch.tensor([[0.4, -1.5]]),
        "segments": torch.tensor([[0.1, -0.1]]),
        "layer 1": torch.tensor([[0.2, 0.0]]),
    }
    grid = torch.tensor([[[0.5, 0.1, 0, 0], [-0.25, -0.25, 0, 0]]])
    write_relevance(
        tmp_path,
        Captions.of([1], [[1, 3]]),
        [(np.array([0]), Explanation(grid, conservation=account))],
        map_size=4,
        attributes={
            "explainer": "alpha_beta_lrp",
            "split": "test",
            "grid": (2, 2),
            "image_size": 8,
        },
        params={},
        inputs={},
    )
    with RelevanceStore(tmp_path) as store:
        rows = measure_contributions([store], WORDS, resamples=10, seed=1)
    found = {(row.word_kind, row.measure): row.value for row in rows}
    assert found["all", "vision"] == pytest.approx(1.1 / 3)
    assert found["all", "language"] == pytest.approx(1.9 / 3)
    assert found["position 2", "vision"] == pytest.approx(0.25)
    assert found["function", "vision"] == pytest.approx(0.6)
    assert found["object", "segments"] == pytest.approx(0.05)
    assert found["position 1", "layer 1"] == pytest.approx(0.2)
    assert found["object", "entropy"] == pytest.approx(np.log(2), rel=1e-3)


def test_words_of_scenes_are_objects_attributes_relations_and_the_rest() -> None:
    assert kinds_of([1, 2, 3], WORDS) == ["function", "attribute", "object"]
    assert kinds_of([1, 2], None) == [None, None]


def test_a_map_without_relevance_has_no_entropy() -> None:
    assert entropy(torch.zeros(1, 4)).tolist() == [0]
