"""The sanity check: what cannot change stays the same, noise has nothing in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from toy_context import SETTINGS, add_store, toy_context

from capscope.benchmarks.context import Context
from capscope.benchmarks.randomisation import measure_randomisation, rank_correlation
from capscope.explain import explainer_class
from capscope.explain.controls import RandomDecoder
from capscope.explain.subject import Subject
from capscope.explain.words import scene_words

IMAGES = SETTINGS["benchmarks"]["randomisation_images"]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("randomisation")
    context = toy_context(folder)
    captions = context.stores[0].captions()
    context.stores = [
        *context.stores,
        add_store(folder, "feature_norm", captions, words=False),
        add_store(folder, "random_decoder", captions, words=True),
    ]
    return context


def test_rank_correlation_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    first = torch.from_numpy(generator.integers(0, 6, (7, 20)).astype(np.float32))
    second = torch.from_numpy(generator.normal(size=(7, 20)))
    second[0] = first[0] ** 3
    second[1] = -first[1]
    first[2] = 1.0
    found = rank_correlation(first, second)
    for k in (0, 1, 3, 4, 5, 6):
        assert found[k] == pytest.approx(stats.spearmanr(first[k], second[k]).statistic)
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(-1)
    assert found[2].isnan()


def test_each_explainer_is_compared_with_itself_on_new_weights(context: Context) -> None:
    rows = measure_randomisation(context, scene_words, images=IMAGES, resamples=20, seed=1)
    found = {(row.explainer, row.measure): row for row in rows}
    subject = context.subject
    drawn = Subject(RandomDecoder(subject).explained(), subject.vocabulary, subject.extractor)
    for store in context.stores[:2]:
        explainer = explainer_class(store.explainer)(drawn, 0.01, steps=2)
        values, absolute, pairs = [], [], []
        for row in range(IMAGES):
            stored = store[row]
            words = [subject.vocabulary.words[i] for i in stored.word_ids]
            inputs = subject.inputs(torch.tensor([stored.word_ids]))
            lengths = torch.tensor([len(words)])
            features = context.features.read([stored.image_id])
            theirs = explainer.explain(None, features, inputs, lengths).grid[0].detach()
            nouns = [word for word in scene_words(words) if word.kind == "noun"]
            for k, noun in enumerate(nouns):
                own, other = stored.grid[noun.position].flatten(), theirs[noun.position]
                values.append(stats.spearmanr(own, other).statistic)
                absolute.append(stats.spearmanr(own.abs(), other.abs()).statistic)
                for later in nouns[k + 1 :]:
                    if later.about != noun.about:
                        maps = stored.grid[later.position].flatten()
                        pairs.append(stats.spearmanr(own, maps).statistic)
        row = found[store.explainer, "random weights"]
        assert row.value == pytest.approx(np.mean(values), abs=1e-4)
        assert row.n == len(values)
        assert found[store.explainer, "another noun"].value == pytest.approx(np.mean(pairs))
        key = (store.explainer, "random weights absolute")
        assert (key in found) == (store.explainer == "lrp")  # attention has no sign
        if key in found:
            assert found[key].value == pytest.approx(np.mean(absolute), abs=1e-4)


def test_a_control_on_new_weights_is_not_given_new_weights_again(context: Context) -> None:
    rows = measure_randomisation(context, scene_words, images=IMAGES, resamples=20, seed=1)
    found = {(row.explainer, row.measure) for row in rows}
    assert ("random_decoder", "another noun") in found
    assert ("random_decoder", "random weights") not in found
    assert ("feature_norm", "initial weights") in found


def test_maps_that_no_weight_changes_correlate_fully(context: Context) -> None:
    norm = explainer_class("feature_norm")(context.subject)
    store = context.stores[0]
    stored = store[0]
    inputs = context.subject.inputs(torch.tensor([stored.word_ids]))
    features = context.features.read([stored.image_id])
    lengths = torch.tensor([len(stored.word_ids)])
    grid = norm.explain(None, features, inputs, lengths).grid[0]
    assert rank_correlation(grid[:1], grid[1:2]).item() == pytest.approx(1)
