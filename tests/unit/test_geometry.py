"""Geometry of boxes against slow twins, written box by box from the equations."""

import math

import pytest
import torch

from capscope.errors import CapscopeError
from capscope.features.geometry import (
    grid_marginals,
    grid_weights,
    normalised_geometry,
    relation_deltas,
    relation_features,
    relative_boxes,
)
from capscope.features.store import grid_boxes

SPECIAL = [[0.0, 0, 1, 1], [0.25, 0.5, 0.25, 0.75], [0.3, 0.3, 0.3, 0.3], [0, 0, 0, 0]]


def boxes(count: int = 40) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    corners = torch.rand(count, 2, 2, generator=rng).sort(1).values.flatten(1)
    return torch.cat([corners, torch.tensor(SPECIAL)])


def slow_weights(box: list[float], side: int, mode: str) -> list[float]:
    x0, y0, x1, y1 = box
    found = []
    for row in range(side):
        for column in range(side):
            wide = max(0.0, min(x1, (column + 1) / side) - max(x0, column / side))
            high = max(0.0, min(y1, (row + 1) / side) - max(y0, row / side))
            whole = (x1 - x0) * (y1 - y0) if mode == "box" else 1 / side**2
            found.append(wide * high / whole if whole > 0 else 0.0)
    return found


@pytest.mark.parametrize("mode", ["box", "cell"])
@pytest.mark.parametrize("side", [1, 2, 5, 12])
def test_grid_weights_are_the_overlaps_of_box_and_cell(mode: str, side: int) -> None:
    found = grid_weights(boxes(), side, mode)  # type: ignore[arg-type]
    expected = [slow_weights(box, side, mode) for box in boxes().double().tolist()]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_weights_of_a_box_add_up_to_one_and_have_the_marginals() -> None:
    weights = grid_weights(boxes(), 6).view(-1, 6, 6)
    rows, columns = grid_marginals(boxes(), 6)
    torch.testing.assert_close(weights.sum(2), rows)
    torch.testing.assert_close(weights.sum(1), columns)
    torch.testing.assert_close(weights[:41].sum((1, 2)), torch.ones(41))
    assert not weights[41:].any()


def test_the_weights_of_a_grid_cell_are_that_cell() -> None:
    torch.testing.assert_close(grid_weights(grid_boxes((4, 4)), 4), torch.eye(16))


def test_grid_weights_of_an_unknown_mode_are_refused() -> None:
    with pytest.raises(CapscopeError, match="allowed: box, cell"):
        grid_weights(boxes(), 4, "area")  # type: ignore[arg-type]


def test_relative_boxes_are_clipped_to_the_image() -> None:
    pixels = torch.tensor([[-5.0, 10, 320, 500], [0, 0, 640, 480]])
    found = relative_boxes(pixels, 640, 480)
    assert found.dtype == torch.float64
    assert found.tolist() == [[0, 10 / 480, 0.5, 1], [0, 0, 1, 1]]
    with pytest.raises(CapscopeError, match="640 x 0 pixels"):
        relative_boxes(pixels, 640, 0)


def test_normalised_geometry_ends_with_the_area() -> None:
    found = normalised_geometry(torch.tensor([[0.25, 0.0, 0.75, 0.5]]))
    assert found.tolist() == [[0.25, 0.0, 0.75, 0.5, 0.25]]


def slow_deltas(one: list[float], other: list[float], parity: bool) -> list[float]:
    def shape(box: list[float]) -> tuple[float, float, float, float]:
        width, height = box[2] - box[0], box[3] - box[1]
        if parity:
            width, height = width + 1, height + 1
        else:
            width, height = max(width, 1e-3), max(height, 1e-3)
        return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width, height

    x, y, w, h = shape(one)
    x2, y2, w2, h2 = shape(other)
    return [
        math.log(max(abs(x - x2) / w, 1e-3)),
        math.log(max(abs(y - y2) / h, 1e-3)),
        math.log(w / w2),
        math.log(h / h2),
    ]


@pytest.mark.parametrize("parity", [False, True])
def test_relations_are_those_of_every_pair(parity: bool) -> None:
    some = boxes(8).double()
    deltas = relation_deltas(some, parity)
    features = relation_features(some, 64, parity)
    for i, one in enumerate(some.tolist()):
        for j, other in enumerate(some.tolist()):
            expected = slow_deltas(one, other, parity)
            angles = [100 * d / 1000 ** (k / 8) for d in expected for k in range(8)]
            waves = [*map(math.sin, angles), *map(math.cos, angles)]
            assert deltas[i, j].tolist() == pytest.approx(expected, abs=1e-9)
            assert features[i, j].tolist() == pytest.approx(waves, abs=1e-6)


def test_relations_of_a_batch_are_those_of_its_images() -> None:
    batch = boxes(20).view(4, 6, 4)
    together = relation_features(batch, 16)
    assert together.shape == (4, 6, 6, 16)
    for found, own in zip(together, batch, strict=True):
        torch.testing.assert_close(found, relation_features(own, 16))


def test_relations_of_empty_boxes_are_finite() -> None:
    assert relation_features(torch.zeros(3, 4)).isfinite().all()
    assert relation_features(torch.zeros(3, 4), parity=True).isfinite().all()


@pytest.mark.parametrize("size", [0, 4, 12])
def test_a_size_that_does_not_divide_is_refused(size: int) -> None:
    with pytest.raises(CapscopeError, match="multiple of 8"):
        relation_features(boxes(), size)
