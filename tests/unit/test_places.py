"""Where entries of maps are, cells or regions, against sampling; and rank accuracy on them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from capscope.benchmarks.baselines import centre, centre_of_boxes
from capscope.benchmarks.depiction import DepictedObject, Depiction
from capscope.benchmarks.ground_truth import Case, maps_of
from capscope.benchmarks.localisation import rank_accuracy
from capscope.benchmarks.places import boxes_of, boxes_on, masks_at, masks_on, present
from capscope.explain.raster import at_centres, coverage, paint
from capscope.explain.store import StoredRelevance
from capscope.explain.words import scene_words

GRID = torch.tensor([[x / 4, y / 4, (x + 1) / 4, (y + 1) / 4] for y in range(4) for x in range(4)])
"""The cells of a 4 x 4 grid as boxes."""


def masks(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed)) > 0.6


def test_boxes_that_are_the_cells_of_a_grid_are_the_grid() -> None:
    shapes = masks()
    on = masks_on(shapes, (16, 1), GRID).flatten(1)
    torch.testing.assert_close(on, coverage(shapes, 4, 4).flatten(1))
    at = masks_at(shapes, (16, 1), GRID).flatten(1)
    assert torch.equal(at, at_centres(shapes, 4, 4).flatten(1))
    targets = torch.tensor([[0.1, 0.2, 0.55, 0.9], [0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(
        boxes_on(targets, (16, 1), GRID).flatten(1), boxes_on(targets, (4, 4), None).flatten(1)
    )


def test_coverage_of_boxes_is_that_of_many_small_pixels() -> None:
    boxes = torch.tensor([[0.1, 0.05, 0.72, 0.5], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.3, 0.3]])
    shapes = masks(1)
    fine, size = shapes.repeat_interleave(40, 1).repeat_interleave(40, 2), 640
    middles = (torch.arange(size) + 0.5) / size
    found = masks_on(shapes, (3, 1), boxes)[..., 0]
    for n, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        rows = (middles >= y0) & (middles < y1)
        columns = (middles >= x0) & (middles < x1)
        for k in range(3):
            inside = fine[k][rows][:, columns].float()
            expected = inside.mean().item() if inside.numel() else 0.0
            assert abs(found[k, n].item() - expected) < 0.01


def test_padding_is_nowhere() -> None:
    boxes = torch.tensor([[0.2, 0.2, 0.8, 0.8], [0.0, 0.0, 0.0, 0.0]])
    full = torch.ones(1, 8, 8, dtype=torch.bool)
    torch.testing.assert_close(masks_on(full, (2, 1), boxes).flatten(), torch.tensor([1.0, 0.0]))
    assert masks_at(full, (2, 1), boxes).flatten().tolist() == [True, False]
    stored = region_relevance(boxes, torch.zeros(1, 2, 1))
    assert present(stored).tolist() == [True, False]
    assert boxes_of(stored, "pixels") is None
    assert boxes_of(stored, "grid") is boxes


def region_relevance(boxes: torch.Tensor, grid: torch.Tensor) -> StoredRelevance:
    painted = paint(grid[..., 0].unsqueeze(0), boxes.unsqueeze(0), 16)[0]
    return StoredRelevance(7, (1,) * len(grid), grid, None, painted, {}, boxes)


def test_regions_are_scored_by_what_lies_in_their_boxes() -> None:
    shown = torch.zeros(2, 16, 16, dtype=torch.bool)
    shown[0, :8, :8] = True
    shown[1, 8:, 8:] = True
    things = (DepictedObject("dog"), DepictedObject("car"))
    case = Case(Depiction(7, things, shown), scene_words, ["a", "dog"])
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    scores = {}
    for name, values in {"right": [2.0, 0.0, 0.0], "wrong": [0.0, 2.0, 0.0]}.items():
        grid = torch.tensor([[0.0] * 3, values]).unsqueeze(2)
        stored = region_relevance(boxes, grid)
        for resolution, _, measure, value in case.scores(
            maps_of(name, stored, 1), 0.0, stored.boxes
        ):
            scores[name, resolution, measure] = value
    for measure in ("hit", "mass", "choice", "rank"):
        for resolution in ("grid", "pixels"):
            assert scores["right", resolution, measure] == 1, (resolution, measure)
            assert scores["wrong", resolution, measure] == 0, (resolution, measure)


def test_the_centre_of_boxes_is_that_of_the_image() -> None:
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.2, 0.2]])
    found = centre_of_boxes(boxes)
    assert found[0] == 1
    assert found[1] < found[0]
    grid = centre_of_boxes(GRID).reshape(4, 4)
    torch.testing.assert_close(grid, centre((4, 4)))
    stored = region_relevance(boxes, torch.zeros(3, 2, 1))
    assert maps_of("centre", stored, 1)["grid"].shape == (3, 2, 1)


# Rank accuracy


def slow_rank(relevance: np.ndarray, target: np.ndarray) -> float:
    """Return the mean share of the target among the top cells over all orders of ties."""
    size = int(target.sum())
    if not size:
        return 0.0
    values = np.sort(relevance)[::-1]
    threshold = values[size - 1]
    sure = relevance > threshold
    tied = np.flatnonzero(relevance == threshold)
    places = size - sure.sum()
    # Every tied cell is among the top with the same probability.
    expected = target[tied].sum() * places / len(tied)
    return float((target[sure].sum() + expected) / size)


@given(st.integers(0, 10_000), st.integers(1, 4), st.booleans())
def test_rank_accuracy_is_that_of_sorting(seed: int, levels: int, continuous: bool) -> None:
    generator = np.random.default_rng(seed)
    shape = (3, 4, 5)
    maps = generator.normal(size=shape) if continuous else generator.integers(0, levels, shape)
    shown = generator.random(shape) < 0.4
    shown[2] = seed % 3 == 0
    found = rank_accuracy(torch.tensor(maps, dtype=torch.float64), torch.tensor(shown))
    for n in range(3):
        expected = slow_rank(np.asarray(maps[n], float).ravel(), shown[n].ravel())
        assert abs(found[n].item() - expected) < 1e-6


def test_rank_accuracy_of_the_mask_is_one_and_of_nothing_its_area() -> None:
    shown = masks(3)
    assert rank_accuracy(shown.float(), shown).tolist() == [1, 1, 1]
    flat = rank_accuracy(torch.zeros(3, 16, 16), shown)
    torch.testing.assert_close(flat, shown.float().mean((1, 2)))
    assert rank_accuracy(-shown.float(), shown).max() < flat.min()
