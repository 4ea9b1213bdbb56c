"""Ablation of words and patches against one case at a time, and the published summary."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_context import SETTINGS, SIZE, spoken_probability, toy_context

from capscope.benchmarks.ablation import measure_ablation, most_relevant_inputs, patch_masks
from capscope.benchmarks.context import Context
from capscope.benchmarks.measurement import Measurement
from capscope.benchmarks.published import (
    EARLIEST_WORDS,
    OBJECT,
    STOP,
    kind_of,
    published_auc,
    random_control,
    summarise_ablation,
    true_word,
    word_forms,
)
from capscope.benchmarks.roc import auc
from capscope.data.images import read_image
from capscope.data.wordlists import object_words, stop_words
from capscope.decoding.captions import caption_images
from capscope.explain.words import scene_words

CHOSEN = SETTINGS["benchmarks"]["ablation"]
Rows = dict[tuple[str, str, str, str], Measurement]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return toy_context(tmp_path_factory.mktemp("ablation"))


@pytest.fixture(scope="module")
def rows(context: Context) -> Rows:
    found = measure_ablation(context, scene_words, CHOSEN, resamples=20, seed=1)
    return {(row.explainer, row.resolution, row.word_kind, row.measure): row for row in found}


def cases(context: Context):
    """Yield stored relevance, words and input ids of the captions that are judged."""
    store = context.stores[0]
    for row in range(CHOSEN["images"]):
        stored = store[row]
        inputs = context.subject.inputs(torch.tensor([stored.word_ids]))[0].tolist()
        yield stored, [context.vocabulary.words[i] for i in stored.word_ids], inputs


def objects_of(words: list[str]) -> list[int]:
    return [word.position for word in scene_words(words) if word.kind == "noun"]


def test_the_loss_of_words_is_that_of_single_steps(context: Context, rows: Rows) -> None:
    losses: dict[str, list[float]] = {STOP: [], OBJECT: []}
    for stored, words, inputs in cases(context):
        features = context.features.read([stored.image_id])
        objects = objects_of(words)
        for t in range(EARLIEST_WORDS, len(words)):
            kind = OBJECT if t in objects else STOP if words[t] in stop_words() else None
            if kind is None:
                continue
            relevance = stored.words[t, 1 : t + 1].tolist()
            gone = sorted(range(t), key=lambda i: -relevance[i])[: CHOSEN["words"]]
            short = [inputs[0], *(inputs[1 + i] for i in range(t) if i not in gone)]
            before = spoken_probability(context, features, inputs[: t + 1], inputs[t + 1])
            after = spoken_probability(context, features, short, inputs[t + 1])
            losses[kind].append(before - after)
    for kind, expected in losses.items():
        assert expected
        found = rows["lrp", "words", kind, "drop"]
        assert found.value == pytest.approx(np.mean(expected), abs=2e-5)
        assert found.n == len(expected)
        lost = rows["lrp", "words", kind, "not raised"].value
        assert lost == pytest.approx(np.mean([loss >= 0 for loss in expected]))
    assert ("attention", "words", OBJECT, "drop") not in rows
    assert ("random", "words", OBJECT, "drop") in rows


def test_the_loss_of_patches_is_that_of_single_images(context: Context, rows: Rows) -> None:
    gone, losses = [], []
    settings = SETTINGS["decoding"]
    for stored, words, inputs in cases(context):
        picture = read_image(context.dataset.path(context.dataset.by_id(stored.image_id)))
        image = context.subject.network.preprocess(picture)
        features = context.features.read([stored.image_id])
        for t in objects_of(words):
            if t == 0:
                continue
            side, width = SIZE // CHOSEN["patch"], CHOSEN["patch"]
            maps = stored.pixels[t]
            scale = len(maps) // side
            sums = [
                float(maps[y : y + scale, x : x + scale].sum())
                for y in range(0, len(maps), scale)
                for x in range(0, len(maps), scale)
            ]
            masked = image.clone()
            for place in sorted(range(len(sums)), key=lambda i: -sums[i])[: CHOSEN["patches"]]:
                y, x = place // side * width, place % side * width
                masked[:, y : y + width, x : x + width] = 0
            changed = context.subject.look(masked.unsqueeze(0))
            (new,) = caption_images(
                context.subject.captioner, changed, context.vocabulary, settings
            )
            word = inputs[t + 1]
            gone.append(word not in new.word_ids)
            if not gone[-1]:
                prefix = [inputs[0], *new.word_ids[: new.word_ids.index(word)]]
                before = spoken_probability(context, features, inputs[: t + 1], word)
                losses.append(before - spoken_probability(context, changed, prefix, word))
    row = rows["lrp", "pixels", OBJECT, "disappeared"]
    assert row.value == pytest.approx(np.mean(gone))
    assert row.n == len(gone)
    if losses:
        assert rows["lrp", "pixels", OBJECT, "drop"].value == pytest.approx(
            np.mean(losses), abs=2e-5
        )


def test_most_relevant_inputs_are_signed_and_never_the_start() -> None:
    relevance = torch.tensor([[9.0, 0, 0, 0], [9.0, -1, 0, 0], [9.0, -1, -5, 0], [9.0, 1, -7, 2]])
    assert most_relevant_inputs(relevance, 3, 2).inputs == (3, 1)
    assert most_relevant_inputs(relevance, 2, 1).inputs == (1,)
    assert most_relevant_inputs(relevance, 1, 3).inputs == (1,)
    assert most_relevant_inputs(relevance, 0, 3).inputs == ()


def test_masks_of_small_maps_are_those_of_large_ones() -> None:
    small = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(3))
    large = small.repeat_interleave(8, 1).repeat_interleave(8, 2)
    masks = patch_masks(large, 32, 8, 5)
    assert torch.equal(masks, patch_masks(small, 32, 8, 5))
    assert (~masks).sum((1, 2)).tolist() == [5 * 64] * 2
    for one, mask in zip(small, masks, strict=True):
        lowest_gone = one[~mask[::8, ::8]].min()
        assert (one[mask[::8, ::8]] <= lowest_gone).all()


# The published rules


def test_the_published_plural_rule_strips_letters() -> None:
    assert {"glasses", "glasse", "gla"} <= word_forms("glasses")
    assert "bu" in word_forms("bus")
    assert "puppy" in word_forms("puppies")
    assert kind_of("dogs") == OBJECT
    assert kind_of("the") == STOP
    assert kind_of("runs") is None
    assert not stop_words() & object_words()


def test_the_random_control_draws_words_in_order_and_patches_first() -> None:
    words = ["a", "dog", "and", "a", "cat", "on", "the", "sofa", "with", "dogs"]
    control = random_control(words, 4, 4, seed=7)
    generator = random.Random(7)
    expected_maps, expected_words = {}, {}
    for t in (1, 4, 6, 8, 9):
        if words[t] in ("dog", "cat", "dogs"):
            expected_maps[t] = generator.sample(range(16), 16)
        if t >= 6:
            expected_words[t] = generator.sample(range(1, t), 3)
    assert {t: m.flatten().tolist() for t, m in control.maps.items()} == expected_maps
    assert control.deleted == expected_words


def test_the_published_summary_counts_disappeared_words_as_no_loss() -> None:
    summary = summarise_ablation([0.5, -0.1], [], [None, 0.2, -0.4, None])
    assert summary.cases == (2, 0, 4)
    assert summary.not_raised[0] == 0.5
    assert math.isnan(summary.not_raised[1])
    assert summary.not_raised[2] == 0.25
    assert summary.disappeared == 0.5
    assert summary.drop == pytest.approx((0.2, 0.0, -0.05))
    nothing = summarise_ablation([], [], [])
    assert math.isnan(nothing.disappeared)
    assert nothing.drop == (0, 0, 0)


def test_a_word_is_true_if_a_reference_has_its_id() -> None:
    assert true_word(4, [[1, 2, 3], [4, 5]])
    assert not true_word(6, [[1, 2, 3], [4, 5]])


def record(word: str, value: float) -> dict[str, object]:
    quantiles = [str(value + k / 1000) for k in range(100)]
    return {"word": word, "mean": str(value), "max": str(2 * value), "quantile": quantiles}


def test_the_published_aggregation_keeps_the_best_true_and_the_worst_false_mention() -> None:
    true = [[record("dog", 1.0), record("dog", 3.0), record("man", 2.0)], [record("dog", 0.0)]]
    false = [[record("man", 2.5), record("man", -1.0)], [record("dog", 2.2), record("ball", 9.0)]]
    meant = published_auc(true, false)
    assert meant["mean"] == auc([3.0, 2.0, 0.0], [-1.0, 2.2, 9.0])
    assert meant["max"] == meant["mean"]
    assert meant["quantile 0"] == meant["mean"]
    assert "quantile 0.49" in meant
    assert "quantile 0.5" not in meant
    programmed = published_auc(true, false, parity=True)
    assert programmed["mean"] == meant["mean"]
    # The quantiles of an image's last word stand for all of its words.
    assert programmed["quantile 0"] == auc([2.0, 2.0, 0.0], [-1.0, 9.0, 9.0])


def test_benchmarks_know_the_folder_of_a_run(tmp_path: Path) -> None:
    context = toy_context(tmp_path)
    assert context.bootstrap == {"resamples": 20, "seed": 1}
    assert [store.explainer for store in context.stores] == ["lrp", "attention"]
