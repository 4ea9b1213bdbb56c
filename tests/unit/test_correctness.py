"""Correctness against pixel loops, and hallucination against pairs of words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from toy_context import SIDE, add_store, spoken_probability, toy_context

from capscope.benchmarks.context import Context
from capscope.benchmarks.correctness import (
    THRESHOLDS,
    box_scores,
    entity_boxes,
    measure_correctness,
    named_categories,
    positive_relevance,
    published_box_scores,
    published_correctness,
)
from capscope.benchmarks.hallucination import (
    looked_at_image,
    measure_hallucination,
    statistics,
)
from capscope.benchmarks.places import boxes_on
from capscope.benchmarks.roc import Judged, auc, auc_with_interval
from capscope.data.annotations import INSTANCES_FILE
from capscope.data.entities import coco_entities, read_instances
from capscope.explain.words import scene_words
from capscope.features.visual import Features
from capscope.models import build


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return toy_context(tmp_path_factory.mktemp("correctness"))


def slow_scores(relevance: np.ndarray, box: tuple[int, int, int, int]) -> list[float]:
    """Return the share inside a box of whole pixels at each threshold, pixel by pixel."""
    x0, y0, x1, y1 = box
    found = []
    for threshold in THRESHOLDS:
        inside = total = 0.0
        for y, x in np.ndindex(relevance.shape):
            if relevance[y, x] > threshold:
                total += relevance[y, x]
                inside += relevance[y, x] * (y0 <= y < y1 and x0 <= x < x1)
        found.append(inside / total if total else 0.0)
    return found


def test_box_scores_are_those_of_a_loop_over_pixels() -> None:
    maps = torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = [(0, 0, 12, 9), (2, 3, 7, 8), (11, 8, 12, 9), (4, 4, 4, 4)]
    shares = torch.tensor(boxes, dtype=torch.float64) / torch.tensor([12.0, 9, 12, 9])
    relevance = positive_relevance(maps)
    assert relevance.amax((1, 2)).tolist() == [1, 1]
    found = box_scores(relevance, boxes_on(shares, (9, 12), None))
    for n, one in enumerate(relevance.numpy()):
        for k, box in enumerate(boxes):
            np.testing.assert_allclose(found[n, k], slow_scores(one, box), atol=1e-12)
    assert found[:, 0].allclose(torch.ones(10, dtype=torch.float64))
    assert not positive_relevance(-torch.ones(1, 2, 2)).any()


def test_in_place_thresholds_leave_only_the_strongest_to_later_boxes() -> None:
    relevance = positive_relevance(torch.rand(8, 8, generator=torch.Generator().manual_seed(1)))
    boxes = [(0, 0, 8, 8), (1, 1, 6, 6), (3, 0, 8, 4)]
    found = published_box_scores(relevance, boxes)
    left = relevance.double().numpy().copy()
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        for place, threshold in enumerate(THRESHOLDS):
            left[left <= threshold] = 0
            expected = left[y0:y1, x0:x1].sum() / left.sum() if left.sum() else 0
            assert found[k, place] == pytest.approx(expected)
    assert found[1].unique().numel() == 1
    first = published_box_scores(relevance, boxes[:1])
    again = box_scores(relevance[None], boxes_on(torch.tensor([[0.0, 0, 1, 1]]), (8, 8), None))
    torch.testing.assert_close(first[0], again[0, 0].double())


def test_published_categories_match_any_of_their_words_and_every_colour_is_clamped() -> None:
    entity = {
        "categories": {"dining table": "67", "dog": "18"},
        "bbox": {"67": [[0.0, 0.0, 50.0, 100.0]], "18": [[50.0, 0.0, 100.0, 100.0]]},
        "shape": [100, 100],
        "resize_ratio": [0.04, 0.04],
    }
    maps = torch.zeros(3, 3, 4, 4)
    maps[0, 0, :, 0], maps[0, 1, :, 3] = 4.0, -4.0  # left in red, right against it in green
    maps[1, :, 0, 3] = 1.0
    maps[2, :, 0, 0] = 1.0
    found = published_correctness(maps, ["tables", "dogs", "runs"], entity)
    assert list(found) == ["dining table", "dog"]
    assert found["dining table"][0] == 1
    assert found["dog"][0] == 1
    against = published_correctness(maps, ["tables", "dogs", "runs"], entity, negative=True)
    assert against["dining table"].tolist() == [0] * len(THRESHOLDS)


def test_of_several_heads_each_published_threshold_takes_the_best() -> None:
    entity = {
        "categories": {"dog": 0},
        "bbox": {0: [[0, 0, 2, 4]]},
        "shape": [4, 4],
        "resize_ratio": [1.0, 1.0],
    }
    maps = torch.rand(3, 1, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    heads = [published_correctness(one, ["dog"], entity)["dog"] for one in maps]
    merged = published_correctness(maps, ["dog"], entity)["dog"]
    assert merged.tolist() == torch.stack(heads).amax(0).tolist()
    assert any(merged.tolist() != head.tolist() for head in heads)


def entities_by_image(context: Context) -> dict[int, dict]:
    instances = read_instances(context.data_dir / INSTANCES_FILE)
    entities = coco_entities(instances)
    return {
        image_id: entities[picture.file_name]
        for image_id, picture in instances.pictures.items()
        if picture.file_name in entities
    }


def test_relevance_in_the_boxes_scores_one(context: Context, tmp_path: Path) -> None:
    entities, first = entities_by_image(context), context.stores[0]

    def inside(row: int) -> torch.Tensor:
        stored = first[row]
        words = [context.vocabulary.words[i] for i in stored.word_ids]
        maps = torch.zeros(len(words), 16, 16)
        places = named_categories(scene_words, words, entities[stored.image_id])
        for category, positions in places.items():
            (x0, y0, x1, y1) = entity_boxes(entities[stored.image_id], category)[0].tolist()
            maps[positions, int((y0 + y1) * 8), int((x0 + x1) * 8)] = 1.0
        return maps

    store = add_store(tmp_path, "gradcam", first.captions(), words=False, maps=inside)
    stores, context.stores = context.stores, [store]
    path = context.data_dir / INSTANCES_FILE
    rows = measure_correctness(context, scene_words, path, resamples=20, seed=1)
    context.stores = stores
    found = {(row.explainer, row.resolution, row.measure): row for row in rows}
    assert found["gradcam", "pixels", "correctness"].value > 0.9
    assert found["gradcam", "pixels", "correctness"].value > (
        found["random", "pixels", "correctness"].value + 0.3
    )
    assert ("gradcam", "pixels", "negative") not in found
    for threshold in THRESHOLDS:
        assert ("random", "grid", f"correctness {threshold}") in found


def test_correctness_counts_pairs_of_image_and_category(context: Context) -> None:
    path = context.data_dir / INSTANCES_FILE
    rows = measure_correctness(context, scene_words, path, resamples=20, seed=1)
    entities, pairs, values = entities_by_image(context), 0, []
    for row in range(len(context.stores[0])):
        stored = context.stores[0][row]
        entity = entities[stored.image_id]
        words = [context.vocabulary.words[i] for i in stored.word_ids]
        for category in entity["categories"]:
            mentions = [w.position for w in scene_words(words) if w.about == (category,)]
            mentions = [m for m in mentions if is_noun(words, m)]
            if not mentions:
                continue
            pairs += 1
            boxes = entity_boxes(entity, category)
            per_map = [
                box_scores(
                    positive_relevance(stored.grid[m : m + 1]), boxes_on(boxes, (SIDE, SIDE), None)
                )[0]
                for m in mentions
            ]
            values.append(torch.cat(per_map).amax(0).mean().item())
    row = next(
        row
        for row in rows
        if (row.explainer, row.resolution, row.measure) == ("lrp", "grid", "correctness")
    )
    assert row.n == pairs
    assert row.value == pytest.approx(np.mean(values))


def is_noun(words: list[str], position: int) -> bool:
    return any(w.position == position and w.kind == "noun" for w in scene_words(words))


# True and hallucinated words


def test_statistics_are_those_of_numpy() -> None:
    maps = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(2))
    maps[2] = -maps[2].abs()
    found = statistics(maps, [0.0, 0.25, 0.5, 0.99])
    for n, one in enumerate(maps.double().numpy()):
        positive = one[one > 0]
        expected = {
            "mean": one.mean(),
            "mean_abs": np.abs(one).mean(),
            "mean_pos": positive.mean() if len(positive) else 0.0,
            "max": one.max(),
            **{f"quantile {q:g}": np.quantile(one, q) for q in (0.0, 0.25, 0.5, 0.99)},
        }
        for name, value in expected.items():
            assert found[name][n] == pytest.approx(value, abs=1e-12), name


def test_the_area_is_the_share_of_ordered_pairs() -> None:
    generator = np.random.default_rng(3)
    true, false = generator.integers(0, 6, 30).tolist(), generator.integers(0, 5, 12).tolist()
    pairs = [(t > f) + (t == f) / 2 for t in true for f in false]
    assert auc(true, false) == pytest.approx(np.mean(pairs))
    test = stats.mannwhitneyu(true, false)
    assert auc(true, false) == pytest.approx(test.statistic / (len(true) * len(false)))
    assert np.isnan(auc([], false))
    assert auc([1, 2], [0]) == 1


def test_the_interval_of_an_area_draws_whole_images() -> None:
    generator = np.random.default_rng(4)
    words = [
        Judged(image, bool(true), float(generator.normal() + true))
        for image in range(30)
        for true in generator.integers(0, 2, 4)
    ]
    value, low, high = auc_with_interval(words, 3000, 1)
    by_image = {k: [w for w in words if w.image_id == k] for k in range(30)}
    drawn = []
    for _ in range(3000):
        chosen = [w for k in generator.integers(0, 30, 30) for w in by_image[k]]
        drawn.append(
            auc([w.value for w in chosen if w.true], [w.value for w in chosen if not w.true])
        )
    np.testing.assert_allclose([low, high], np.quantile(drawn, [0.025, 0.975]), atol=0.02)
    assert value == auc([w.value for w in words if w.true], [w.value for w in words if not w.true])


@pytest.mark.slow
def test_hallucinated_nouns_are_those_that_nothing_shows(context: Context) -> None:
    path = context.data_dir / INSTANCES_FILE
    boxes = read_instances(path)
    rows = measure_hallucination(context, scene_words, boxes, resamples=20, seed=1)
    found = {(row.explainer, row.resolution, row.measure): row for row in rows}
    true, false, seen = {"max": [], "p": []}, {"max": [], "p": []}, []
    for row in range(len(context.stores[0])):
        stored = context.stores[0][row]
        words = [context.vocabulary.words[i] for i in stored.word_ids]
        shown = {thing.category for thing in boxes.objects(stored.image_id)}
        inputs = context.subject.inputs(torch.tensor([stored.word_ids]))[0].tolist()
        features = context.features.read([stored.image_id])
        for word in scene_words(words):
            if word.kind == "noun":
                t = word.position
                seen.append(word.about[0] in shown)
                group = true if seen[-1] else false
                group["max"].append(float(stored.pixels[t].max()))
                said = spoken_probability(context, features, inputs[: t + 1], inputs[t + 1])
                group["p"].append(said)
    assert any(seen)
    assert not all(seen)
    row = found["lrp", "pixels", "max"]
    assert row.value == pytest.approx(auc(true["max"], false["max"]))
    assert row.n == len(seen)
    probability = found["captioner", "words", "probability"]
    assert probability.value == pytest.approx(auc(true["p"], false["p"]))
    hallucinated = found["captioner", "words", "hallucinated"]
    assert hallucinated.value == pytest.approx(1 - np.mean(seen))
    assert ("lrp", "grid", "image share") in found
    assert ("attention", "grid", "image share") not in found


@pytest.mark.parametrize("name", ["gridtd", "adaptive", "aoa"])
def test_a_visual_sentinel_tells_how_much_a_word_looked_at_the_image(name: str) -> None:
    sizes = {"vocabulary_size": 9, "feature_size": 5, "embedding": 8, "hidden": 8}
    torch.manual_seed(0)
    captioner = build(name, **sizes, **({} if name != "aoa" else {"heads": 2})).eval()
    features, word_ids = Features(torch.rand(1, 6, 5)), torch.tensor([[1, 4, 3, 2]])
    looked = looked_at_image(captioner, features, word_ids)
    if name == "aoa":
        assert looked is None
        return
    assert looked is not None
    assert looked.shape == (4,)
    assert ((looked > 0) & (looked < 1)).all()
    shorter = looked_at_image(captioner, features, word_ids[:, :2])
    torch.testing.assert_close(shorter, looked[:2])


def test_what_a_reference_names_is_no_hallucination(tmp_path: Path) -> None:
    context = toy_context(tmp_path, false_words=False)
    rows = measure_hallucination(context, scene_words, None, resamples=20, seed=1)
    found = {(row.explainer, row.measure): row for row in rows}
    assert found["captioner", "hallucinated"].value == 0
    assert np.isnan(found["lrp", "max"].value)
    assert json.dumps(found["captioner", "hallucinated"].n)
