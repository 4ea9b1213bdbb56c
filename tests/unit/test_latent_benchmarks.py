"""Ablation and rank correlation in latent space, against single passes, counts and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr
from toy_context import SIDE, toy_context

from capscope.benchmarks import measure
from capscope.benchmarks.context import Context
from capscope.benchmarks.latent_ablation import measure_latent_ablation
from capscope.benchmarks.latent_correlation import correlations, mid_rank
from capscope.benchmarks.latent_published import (
    AblationType,
    compare_rank,
    rank_score,
)
from capscope.benchmarks.measurement import Measurement
from capscope.errors import CapscopeError
from capscope.explain.words import scene_words

Rows = dict[tuple[str, str], Measurement]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return toy_context(tmp_path_factory.mktemp("latent"), false_words=False)


def by_name(rows: list[Measurement]) -> Rows:
    return {(row.explainer, row.measure): row for row in rows}


def test_drops_are_those_of_single_passes_without_the_features(context: Context) -> None:
    settings = {"images": 3, "types": ["vf_2_min"], "search": False, "beam": 2}
    rows = by_name(measure_latent_ablation(context, scene_words, settings, resamples=5, seed=1))
    captioner, (store, *_) = context.subject.captioner, context.stores
    lost = []
    for n in range(3):
        stored = store[n]
        inputs = context.subject.inputs(torch.tensor([stored.word_ids]))
        own = context.features.read([stored.image_id])
        words = [context.vocabulary.words[word_id] for word_id in stored.word_ids]
        for word in scene_words(words):
            if word.kind != "noun":
                continue
            first = stored.grid[word.position].flatten().argsort(descending=True)[:2]
            values = []
            for gone in ([], first.tolist()):
                with torch.no_grad():
                    latent = captioner.project(own)
                    latent[:, gone] = 0
                    cells = own.cells.clone()
                    cells[:, gone] = 0
                    memory = captioner.memory(latent, own._replace(cells=cells))
                    state = captioner.start(memory)
                    for t in range(word.position + 1):
                        step = captioner.step(inputs[:, t : t + 1], state, memory)
                        state = step.state
                values.append(float(step.log_probs[0, 0, inputs[0, word.position + 1]]))
            lost.append(values[0] - values[1])
    found = rows["lrp", "drop vf_2_min"]
    assert found.n == len(lost)
    assert found.value == pytest.approx(np.mean(lost), abs=1e-5)
    share = np.mean(np.array(lost) > 0)
    assert rows["lrp", "drops vf_2_min"].value == pytest.approx(share)


def test_all_features_gone_make_every_explainer_equal(context: Context) -> None:
    count = SIDE * SIDE
    settings: dict[str, Any] = {
        "images": 4,
        "types": [f"vf_{count}_max", f"vf_{count + 1}_min", "ob_1_min"],
        "search": True,
        "beam": 2,
    }
    with pytest.warns(UserWarning, match=f"enough .* for (vf_{count + 1}_min|ob_1_min)"):
        rows = by_name(measure_latent_ablation(context, scene_words, settings, resamples=5, seed=1))
    assert {measure.split()[-1] for _, measure in rows} == {f"vf_{count}_max"}
    drops = {rows[name, f"drop vf_{count}_max"].value for name in ("lrp", "attention", "random")}
    assert len(drops) == 1
    assert 0 <= rows["lrp", f"missing vf_{count}_max"].value <= 1


def test_noise_is_repeatable(context: Context) -> None:
    settings = {"images": 2, "types": ["vf_3_15"], "search": False, "beam": 2}
    first, again = (
        measure_latent_ablation(context, scene_words, settings, resamples=5, seed=1)
        for _ in range(2)
    )
    assert [tuple(map(str, row)) for row in first] == [tuple(map(str, row)) for row in again]


def test_rank_correlation_with_the_truth(context: Context) -> None:
    rows = by_name(measure("latent_correlation", context))
    for name in ("lrp", "attention", "random", "centre"):
        assert -1 <= rows[name, "spearman truth"].value <= 1
        assert rows[name, "kendall truth"].n == rows[name, "spearman truth"].n > 0
    assert ("lrp", "spearman detector") not in rows  # a grid has none


def test_correlations_by_hand() -> None:
    relevance, other = torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([4.0, 1.0, 2.0, 3.0])
    found = dict(correlations(relevance, other, "x"))
    assert found["spearman x"] == pytest.approx(1 - 6 * 6 / 60)  # differences 0, -1, -1, 2
    pairs = [(a, b) for a in range(4) for b in range(a)]
    agree = sum(
        float(torch.sign((relevance[a] - relevance[b]) * (other[a] - other[b]))) for a, b in pairs
    )
    assert found["kendall x"] == pytest.approx(agree / len(pairs))
    assert dict(correlations(relevance, torch.ones(4), "x")) == {}
    assert set(dict(correlations(torch.ones(4), other, "x")).values()) == {0.0}


def test_correlations_are_those_of_scipy_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (2, 7, 36):
        relevance = torch.randint(0, 9, (count,), generator=generator).float()
        other = torch.arange(count).float().div(3, rounding_mode="floor") + (count < 4)
        if count == 2:
            relevance, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        found = dict(correlations(relevance, other, "x"))
        assert found["spearman x"] == pytest.approx(spearmanr(relevance, other).statistic)
        assert found["kendall x"] == pytest.approx(kendalltau(relevance, other).statistic)


def test_features_that_tie_share_their_rank() -> None:
    relevance = torch.tensor([0.0, 2.0, 0.0, 0.0])
    assert mid_rank(relevance, 1) == 0
    assert mid_rank(relevance, 0) == mid_rank(relevance, 3) == 2


def test_published_ranks_never_punish_a_better_rank() -> None:
    assert compare_rank([2, 0, 1], 2) == (2, 0, 0, 1.0)
    assert compare_rank([2, 0, 1], 0) == (0, 1, 1, 0.5)
    assert rank_score([], 3) == (0, 3, 0.0, 0.0)


def test_types_of_ablation_are_read_with_any_number_and_refused_with_a_reason() -> None:
    assert AblationType.parse("vf_36_min") == AblationType("vf", 36, "min")
    assert AblationType.parse("ob_12_15").count == 12
    for wrong in ("vf_0_min", "vf_x_min", "xx_2_min", "vf_2", "vf_2_mid", "vf_2_min_3", ""):
        with pytest.raises(CapscopeError, match="write vf_X_M"):
            AblationType.parse(wrong)


def test_more_features_or_objects_than_an_image_has_are_left_out() -> None:
    order, classes = [3, 0, 2, 1], [7, 5, 7]
    assert AblationType.parse("vf_2_min").positions(order, classes) == [3, 0]
    assert AblationType.parse("vf_5_min").positions(order, classes) is None
    assert AblationType.parse("ob_1_min").positions(order[1:], classes) == [0, 2]
    assert AblationType.parse("ob_2_min").positions(order[1:], classes) == [0, 2, 1]
    assert AblationType.parse("ob_3_min").positions(order[1:], classes) is None
    assert AblationType.parse("ob_1_min").positions(order, classes) is None  # padding first


def test_ablation_works_on_a_folder_of_nothing_to_ablate(tmp_path: Path) -> None:
    context = toy_context(tmp_path)
    settings = {"images": 4, "types": ["vf_1_min"], "search": False, "beam": 2}
    assert measure_latent_ablation(context, lambda _: [], settings, resamples=5, seed=1) == []
