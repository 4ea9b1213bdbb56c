"""Deletion and insertion curves against one word, one explainer, one step at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_context import SETTINGS, SIDE, SIZE, spoken_probability, toy_context

from capscope.benchmarks.context import Context
from capscope.benchmarks.deletion import (
    Question,
    area,
    both_curves,
    measure_deletion,
    most_relevant,
    points,
)
from capscope.benchmarks.parts import Cells
from capscope.data.images import read_image
from capscope.explain.raster import sum_pool
from capscope.explain.words import Word, scene_words
from capscope.features.visual import Features

CHOSEN = SETTINGS["benchmarks"]["deletion"]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return toy_context(tmp_path_factory.mktemp("deletion"))


def nouns_of(context: Context, word_ids: tuple[int, ...]) -> list[int]:
    words = [context.vocabulary.words[i] for i in word_ids]
    return [word.position for word in scene_words(words) if word.kind == "noun"]


def slow_area(values: list[float], shares: list[float]) -> float:
    """Return the area under straight lines between points."""
    found = 0.0
    for k in range(1, len(values)):
        found += (shares[k] - shares[k - 1]) * (values[k] + values[k - 1]) / 2
    return found


def slow_curves(context: Context, resolution: str, explainer: str) -> dict[str, float]:
    """Return the mean deletion and insertion of nouns, asked one by one."""
    store = next(s for s in context.stores if s.explainer == explainer)
    ids = store.image_ids[: CHOSEN["images"]]
    mean = context.features.read(ids).cells.mean(0)
    found: dict[str, list[float]] = {"deletion": [], "insertion": []}
    for row in range(len(ids)):
        stored = store[row]
        own = context.features.read([stored.image_id])
        inputs = context.subject.inputs(torch.tensor([stored.word_ids]))[0].tolist()
        picture = read_image(context.dataset.path(context.dataset.by_id(stored.image_id)))
        image = context.subject.network.preprocess(picture)
        for position in nouns_of(context, stored.word_ids):
            prefix, word = inputs[: position + 1], inputs[position + 1]
            if resolution == "words":
                relevance = stored.words[position, 1 : position + 1]
            elif resolution == "pixels":
                side = SIZE // CHOSEN["patch"]
                relevance = sum_pool(stored.pixels[position], side, side).flatten()
            else:
                relevance = stored.grid[position].flatten()
            if not len(relevance):
                continue
            order = relevance.argsort(descending=True).tolist()
            count = len(order)
            steps = sorted({round(count * k / CHOSEN["steps"]) for k in range(CHOSEN["steps"] + 1)})
            for measure in found:
                values = []
                for k in steps:
                    kept = order[k:] if measure == "deletion" else order[:k]
                    said, features = prefix, own
                    if resolution == "words":
                        said = [prefix[0], *(prefix[1 + i] for i in sorted(kept))]
                    elif resolution == "pixels":
                        masked = torch.zeros_like(image)
                        for i in kept:
                            y, x = (i // side) * CHOSEN["patch"], (i % side) * CHOSEN["patch"]
                            block = (
                                slice(None),
                                slice(y, y + CHOSEN["patch"]),
                                slice(x, x + CHOSEN["patch"]),
                            )
                            masked[block] = image[block]
                        features = context.subject.look(masked.unsqueeze(0))
                    else:
                        cells = mean.clone()
                        cells[kept] = own.cells[0, kept]
                        features = own._replace(cells=cells.unsqueeze(0))
                    values.append(spoken_probability(context, features, said, word))
                found[measure].append(slow_area(values, [k / count for k in steps]))
    return {measure: float(np.mean(values)) for measure, values in found.items()}


@pytest.mark.parametrize(
    ("resolution", "explainer"),
    [("grid", "lrp"), ("grid", "attention"), ("pixels", "lrp"), ("words", "lrp")],
)
def test_areas_are_those_of_the_slow_twin(
    context: Context, resolution: str, explainer: str
) -> None:
    rows = {
        (row.explainer, row.resolution, row.measure): row
        for row in measure_deletion(context, scene_words, CHOSEN, resamples=20, seed=1)
    }
    for measure, expected in slow_curves(context, resolution, explainer).items():
        row = rows[explainer, resolution, measure]
        assert row.value == pytest.approx(expected, abs=2e-5)
        assert row.low <= row.value <= row.high
    intact = rows["captioner", "grid", "intact"].value
    assert rows[explainer, "grid", "deletion 0.00"].value == intact
    assert rows[explainer, "grid", "insertion 1.00"].value == intact
    assert ("random", resolution, "deletion") in rows
    assert ("attention", "words", "deletion") not in rows  # attention says nothing of words
    assert ("centre", "words", "deletion") not in rows


def test_deleting_from_one_end_is_inserting_from_the_other() -> None:
    word = Word(3, "noun", ("dog",))
    relevance = torch.tensor([0.3, -1.0, 2.0, 0.1, 0.0])

    def ask(kept: Tensor, positions: list[int]) -> Tensor:
        assert positions == [3] * len(kept)
        return kept.float() @ torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])

    questions = [Question(word, "a", relevance), Question(word, "b", -relevance)]
    (deleted, inserted), (deleted_back, inserted_back) = both_curves(ask, questions, 5, 0)
    for count in deleted:
        assert deleted[count] == pytest.approx(inserted_back[5 - count])
        assert inserted[count] == pytest.approx(deleted_back[5 - count])
    assert list(inserted) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(list(inserted.values()), [0, 0.3, 0.4, 0.55, 0.8, 1.0], atol=1e-6)


def test_what_several_explainers_ask_is_asked_once() -> None:
    asked = []

    def ask(kept: Tensor, positions: list[int]) -> Tensor:
        asked.extend(zip(positions, kept.tolist(), strict=True))
        return torch.zeros(len(kept))

    same = torch.randn(6, generator=torch.Generator().manual_seed(1))
    words = [Word(1, "noun"), Word(4, "noun")]
    questions = [Question(word, name, same) for word in words for name in ("a", "b")]
    list(both_curves(ask, questions, 3, 0))
    assert len(asked) == 2 * (2 + 2 * 2)  # ends, and two inner points each way, of two words
    assert len({(position, tuple(row)) for position, row in asked}) == len(asked)


def test_a_better_order_has_the_lower_deletion_and_the_higher_insertion() -> None:
    truth = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])

    def ask(kept: Tensor, positions: list[int]) -> Tensor:
        return kept.float() @ truth / 2

    noise = torch.rand(8, generator=torch.Generator().manual_seed(2))
    questions = [Question(Word(2, "noun"), name, r) for name, r in (("t", truth), ("n", noise))]
    (gone, back), (noise_gone, noise_back) = both_curves(ask, questions, 8, 0)
    assert area(gone) < area(noise_gone)
    assert area(back) > area(noise_back)
    assert area(gone) == pytest.approx(0.125)
    assert area(back) == pytest.approx(0.875)


def test_ties_come_in_a_drawn_order_and_the_rest_by_relevance() -> None:
    relevance = torch.tensor([0.0, 5.0, 0.0, 0.0, -1.0])
    for seed in range(20):
        kept = most_relevant(relevance, [0, 1, 2, 4, 5], seed)
        assert kept.sum(1).tolist() == [0, 1, 2, 4, 5]
        assert kept[1].tolist() == [False, True, False, False, False]
        assert not kept[3, 4]
    second = {tuple(most_relevant(relevance, [2], seed)[0].tolist()) for seed in range(30)}
    assert len(second) == 3


def test_points_are_even_and_never_twice() -> None:
    assert points(64, 4) == [0, 16, 32, 48, 64]
    assert points(3, 5) == [0, 1, 2, 3]
    assert points(1, 5) == [0, 1]


def test_regions_that_are_padding_are_neither_deleted_nor_counted(tmp_path: Path) -> None:
    context = toy_context(tmp_path)
    own = context.features.read(context.stores[0].image_ids[:1])
    valid = torch.ones(1, SIDE * SIDE, dtype=torch.bool)
    valid[0, 10:] = False
    own = Features(own.cells, own.boxes, valid)
    stored = context.stores[0][0]
    parts = Cells(context.subject, own, stored.word_ids, torch.zeros(own.cells.shape[2]))
    relevance = parts.relevance("lrp", stored, 1)
    assert relevance is not None
    assert relevance.shape == (len(stored.word_ids), 10)
    kept = torch.zeros(2, 10, dtype=torch.bool)
    kept[1, 3] = True
    cells = parts.features(kept)(slice(0, 2)).cells
    assert cells[:, :10].abs().sum((1, 2)).tolist()[0] == 0
    assert torch.equal(cells[1, 3], own.cells[0, 3])
    assert torch.equal(cells[0, 10:], own.cells[0, 10:])
