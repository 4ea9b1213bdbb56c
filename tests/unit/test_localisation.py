"""Pointing game, relevance mass and choice, against loops over cells."""

from __future__ import annotations

import pytest
import torch

from capscope.benchmarks.localisation import choice, object_relevance, pointing_hit, relevance_mass


def slow_hit(relevance: list[list[float]], shown: list[list[bool]]) -> float:
    largest = max(max(row) for row in relevance)
    hits = [
        shown[i][j]
        for i, row in enumerate(relevance)
        for j, value in enumerate(row)
        if value == largest
    ]
    return sum(hits) / len(hits)


def slow_mass(relevance: list[list[float]], covered: list[list[float]]) -> float:
    inside = total = 0.0
    for row, shares in zip(relevance, covered, strict=True):
        for value, share in zip(row, shares, strict=True):
            if value > 0:
                total += value
                inside += value * share
    return inside / total if total else 0.0


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_hits_and_mass_equal_loops_over_cells(generator: torch.Generator) -> None:
    maps = torch.randint(-4, 5, (40, 5, 6), generator=generator).float()
    covered = torch.rand(40, 5, 6, generator=generator)
    shown = covered > 0.6
    hits, masses = pointing_hit(maps, shown), relevance_mass(maps, covered)
    for n in range(40):
        assert hits[n].item() == pytest.approx(slow_hit(maps[n].tolist(), shown[n].tolist()))
        assert masses[n].item() == pytest.approx(slow_mass(maps[n].tolist(), covered[n].tolist()))


def test_choice_equals_a_loop_over_objects(generator: torch.Generator) -> None:
    maps = torch.randn(20, 4, 4, generator=generator)
    covered = torch.rand(3, 4, 4, generator=generator)
    targets = torch.rand(20, 3, generator=generator) > 0.5
    chosen = choice(object_relevance(maps, covered), targets)
    for n in range(20):
        sums = [float((maps[n] * covered[k]).sum()) for k in range(3)]
        assert chosen[n].item() == float(targets[n, sums.index(max(sums))])


def test_a_perfect_map_scores_one_in_all_three(generator: torch.Generator) -> None:
    masks = torch.zeros(2, 8, 8)
    masks[0, :3, :3] = masks[1, 5:, 5:] = 1
    targets = torch.eye(2, dtype=torch.bool)
    assert pointing_hit(masks, masks > 0).tolist() == [1, 1]
    assert relevance_mass(masks, masks).tolist() == [1, 1]
    assert choice(object_relevance(masks, masks), targets).tolist() == [1, 1]


def test_a_constant_map_scores_the_share_of_the_image_that_the_target_covers() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[0, :2, :4] = 1
    assert pointing_hit(torch.ones(1, 8, 8), mask > 0).item() == pytest.approx(8 / 64)
    assert relevance_mass(torch.ones(1, 8, 8), mask).item() == pytest.approx(8 / 64)


def test_an_empty_map_finds_nothing_and_chooses_by_chance() -> None:
    covered = torch.rand(4, 3, 3)
    targets = torch.tensor([[True, False, False, False]])
    empty = torch.zeros(1, 3, 3)
    assert relevance_mass(empty, covered[:1]).item() == 0
    assert choice(object_relevance(empty, covered), targets).item() == pytest.approx(0.25)


def test_negative_relevance_on_an_object_speaks_against_it() -> None:
    maps = torch.tensor([[[3.0, -5.0, 1.0]]])
    covered = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    assert object_relevance(maps, covered).tolist() == [[-2.0, 1.0]]
