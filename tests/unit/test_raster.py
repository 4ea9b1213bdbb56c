"""Pooling, coverage, smoothing and enlarging, against slow twins and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from capscope.explain.raster import (
    at_centres,
    coverage,
    enlarge,
    overlap,
    paint,
    smooth,
    sum_pool,
)
from capscope.features.store import grid_boxes


def slow_overlap(source: int, target: int) -> np.ndarray:
    """Count thousandths of pixels: exact where source * 60 sub-pixels fall on cell borders."""
    fine = source * target
    table = np.zeros((target, source))
    for step in range(fine):
        table[step // source, step // target] += 1 / target
    return table


@pytest.mark.parametrize(("source", "target"), [(8, 4), (128, 64), (10, 4), (7, 7), (224, 64)])
def test_overlap_equals_counting_sub_pixels(source: int, target: int) -> None:
    np.testing.assert_allclose(overlap(source, target), slow_overlap(source, target), atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8, 16])
def test_sum_pooling_keeps_the_total(size: int) -> None:
    maps = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sum_pool(maps, size, size).sum((2, 3)), maps.sum((2, 3)))


def test_coverage_is_the_mean_of_the_mask_in_each_cell() -> None:
    masks = torch.rand(3, 12, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    expected = masks.float().reshape(3, 4, 3, 2, 4).mean((2, 4))
    torch.testing.assert_close(coverage(masks, 4, 2), expected)


def test_centres_read_the_mask_in_the_middle_of_each_cell() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 2, 6] = True
    assert at_centres(masks, 2, 2).tolist() == [[[False, True], [False, False]]]
    assert at_centres(masks, 8, 8).equal(masks)
    masks[0, 2, 6], masks[0, 2, 2] = False, True
    assert at_centres(masks, 2, 2).tolist() == [[[True, False], [False, False]]]


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_smoothing_equals_scipy(sigma: float) -> None:
    maps = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    radius = round(3 * sigma)
    expected = [
        ndimage.gaussian_filter(each, sigma, mode="nearest", radius=radius) for each in maps.numpy()
    ]
    np.testing.assert_allclose(smooth(maps, sigma), np.stack(expected), atol=1e-12)


def test_no_smoothing_changes_nothing() -> None:
    maps = torch.randn(1, 4, 4)
    assert smooth(maps, 0.0).equal(maps)


def test_enlarging_keeps_the_total_and_the_place_of_the_maximum() -> None:
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(3))
    large = enlarge(maps, 64)
    torch.testing.assert_close(large.sum((1, 2)), maps.sum((1, 2)))
    row, column = divmod(int(large[0].argmax()), 64)
    assert (row // 8) * 8 + column // 8 == int(maps[0].argmax())


def test_a_pixel_gets_the_relevance_of_the_regions_it_lies_in() -> None:
    generator = torch.Generator().manual_seed(3)
    relevance = torch.randn(2, 3, 5, generator=generator)
    corners = torch.randint(0, 9, (2, 5, 2, 2), generator=generator).sort(2).values
    painted = paint(relevance, corners.flatten(2) / 8, 8)
    for b in range(2):
        for t in range(3):
            expected = torch.zeros(8, 8)
            for n, ((x0, y0), (x1, y1)) in enumerate(corners[b].tolist()):
                expected[y0:y1, x0:x1] += relevance[b, t, n]
            torch.testing.assert_close(painted[b, t], expected)


def test_pixels_that_a_region_covers_in_part_get_that_part() -> None:
    boxes = torch.tensor([[[0.1, 0.25, 0.7, 0.95], [0.0, 0.0, 0.0, 0.0]]])
    relevance = torch.tensor([[[2.0, 5.0]]])
    fine = paint(relevance, boxes, 200)[0, 0]
    coarse = paint(relevance, boxes, 4)[0, 0]
    torch.testing.assert_close(coarse, fine.reshape(4, 50, 4, 50).mean((1, 3)))
    assert float(coarse.max()) == pytest.approx(2)


def test_painted_cells_of_a_grid_are_its_map() -> None:
    relevance = torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(4))
    painted = paint(relevance, grid_boxes((2, 3)).unsqueeze(0), 12)
    expected = relevance.reshape(1, 2, 2, 3)
    expected = expected.repeat_interleave(6, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(painted, expected)


def test_the_most_relevant_region_points_however_large_it_is() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.75, 0.0, 1.0, 0.25]]])
    painted = paint(torch.tensor([[[1.0, 0.9]]]), boxes, 8)[0, 0]
    assert painted.argmax() % 8 < 4
