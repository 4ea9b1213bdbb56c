"""Selecting regions: the fast procedures against loops written from their description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_detector import random_found

from capscope.errors import CapscopeError
from capscope.features.detector import selection_reference as slow
from capscope.features.detector.backend import Found
from capscope.features.detector.region_detector import PROCEDURES, Rule
from capscope.features.detector.selection import (
    attributes_of,
    best_class,
    class_offset_nms,
    nms_within_classes,
    per_class,
    proposals,
    surviving_scores,
)

SIZE = (120, 200)
COUNTS = [0, 1, 5, 20, 60]


def lists(found: Found) -> tuple[list[slow.Box], list[list[float]], list[list[float]]]:
    boxes = [(b[0], b[1], b[2], b[3]) for b in found.boxes.tolist()]
    return boxes, found.class_logits.tolist(), found.deltas.tolist()


def candidates(seed: int, count: int, classes: int = 6) -> Found:
    return random_found(np.random.default_rng(seed), count, classes, SIZE)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["best_class", "per_class"])
def test_pairs_are_those_of_the_slow_twin(name: str, seed: int, count: int) -> None:
    found = candidates(seed, count)
    for wanted in (3, 12, 36):
        fast = {"best_class": best_class, "per_class": per_class}[name]
        twin = {"best_class": slow.best_class, "per_class": slow.per_class}[name]
        chosen = fast(found, SIZE, least=wanted, most=wanted)
        expected = twin(*lists(found), SIZE, wanted)
        assert list(zip(chosen.rows.tolist(), chosen.classes.tolist(), strict=True)) == [
            (row, kind) for _, row, kind, _ in expected
        ]
        scores = torch.tensor([score for score, *_ in expected])
        boxes = torch.tensor([box for *_, box in expected]).reshape(-1, 4)
        torch.testing.assert_close(chosen.scores, scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(chosen.boxes, boxes, rtol=0, atol=1e-3)


@pytest.mark.parametrize("count", [5, 20, 60])
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("bounds", [(36, 36), (10, 30), (2, 4)])
def test_proposals_are_those_of_the_slow_twin(
    bounds: tuple[int, int], inclusive: bool, count: int
) -> None:
    least, most = bounds
    for seed in range(4):
        found = candidates(seed, count)
        raw_size = 240, 400
        raw = found._replace(boxes=found.boxes * 2)
        boxes, logits, _ = lists(raw)
        expected = slow.proposals(boxes, logits, least, most, inclusive=inclusive)
        chosen = proposals(found, SIZE, raw_size, least=least, most=most, inclusive=inclusive)
        assert chosen.rows.tolist() == expected
        assert chosen.boxes.equal(found.boxes[expected])
        assert chosen.classes.equal(found.class_logits[expected, :-1].argmax(1))


def test_few_proposals_of_a_score_are_looked_at_again_without_a_floor() -> None:
    found = candidates(0, 12)
    unlikely = found._replace(class_logits=found.class_logits + torch.tensor([0.0] * 6 + [20.0]))
    chosen = proposals(unlikely, SIZE, SIZE, least=5, most=9)
    expected = slow.proposals(*lists(unlikely)[:2], 5, 9, inclusive=False)
    assert chosen.rows.tolist() == expected
    assert len(expected) == 5


def test_scores_below_a_floor_change_no_score_above_it() -> None:
    found = candidates(1, 60)
    probabilities = found.class_logits.softmax(1)[:, :-1]
    exact = surviving_scores(found.boxes, probabilities, 0.0)
    for floor in (0.001, 0.05, 0.3):
        quick = surviving_scores(found.boxes, probabilities, floor)
        assert quick.equal(exact.where(exact > floor, 0))


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_the_number_of_regions_adapts_or_is_fixed(procedure: str) -> None:
    found = candidates(2, 60, classes=4)
    fixed = Rule(procedure, 12, 12).select(found, SIZE, SIZE)
    assert len(fixed.rows) == 12
    adaptive = Rule(procedure, 5, 20).select(found, SIZE, SIZE)
    assert 5 <= len(adaptive.rows) <= 20
    everything = Rule(procedure, 100, 100).select(found, SIZE, SIZE)
    assert 0 < len(everything.rows) <= (60 if procedure != "per_class" else 240)


@pytest.mark.parametrize("procedure", PROCEDURES)
@pytest.mark.parametrize("parity", [False, True])
def test_an_image_without_proposals_has_no_regions(procedure: str, parity: bool) -> None:
    chosen = Rule(procedure, 36, 36, parity).select(candidates(0, 0), SIZE, SIZE)
    assert [len(part) for part in chosen[:4]] == [0, 0, 0, 0]


def test_equal_scores_are_broken_by_place() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10], [80, 0, 90, 10]])
    scores, classes = torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.tensor([1, 0, 1, 2])
    for function in (nms_within_classes, class_offset_nms):
        assert function(boxes, scores, classes, 0.5).tolist() == [0, 1, 3]


def test_classes_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    scores, classes = torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0, 1, 0])
    assert nms_within_classes(boxes, scores, classes, 0.5).tolist() == [1, 2]


def test_attributes_count_none_or_not() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, -1.0]])
    found = candidates(0, 2)._replace(attribute_logits=logits)
    rows = torch.tensor([1, 0, 1])
    ids, scores = attributes_of(found, rows, count_none=True)
    assert ids.tolist() == [0, 1, 0]
    assert scores.equal(logits.softmax(1)[rows, ids])
    ids, scores = attributes_of(found, rows, count_none=False)
    assert ids.tolist() == [0, 1, 0]
    assert scores.equal(logits[:, :2].softmax(1)[rows, ids])
    with pytest.raises(ValueError, match="no attributes"):
        attributes_of(found._replace(attribute_logits=None), rows, count_none=False)


@pytest.mark.parametrize("wrong", [("other", 36, 36), ("proposals", 0, 36), ("proposals", 37, 36)])
def test_a_wrong_rule_is_an_error_that_a_user_can_read(wrong: tuple[str, int, int]) -> None:
    with pytest.raises(CapscopeError, match="1 <= least <= most"):
        Rule(*wrong)
