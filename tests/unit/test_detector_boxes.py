"""Boxes of the detectors: anchors, decoding, resizing."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from capscope.features.detector.boxes import (
    anchor_boxes,
    clip,
    decode,
    not_empty,
    rescale,
    resized_size,
)


def test_boxes_are_decoded_as_torchvision_decodes_them() -> None:
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, generator=rng) * 100
    boxes = torch.cat([corners, corners + torch.rand(50, 2, generator=rng) * 100], 1)
    deltas = torch.randn(50, 4, generator=rng) * torch.tensor([1.0, 1.0, 10.0, 10.0])
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        expected = BoxCoder(weights).decode_single(deltas, boxes)
        torch.testing.assert_close(decode(boxes, deltas, weights), expected)


def test_anchors_stand_on_the_corners_of_cells_with_the_stated_areas_and_ratios() -> None:
    anchors = anchor_boxes((64, 128), (3, 2)).reshape(3, 2, 2, 3, 4)
    sides = anchors[..., 2:] - anchors[..., :2]
    areas = sides.prod(-1).sqrt()
    torch.testing.assert_close(areas[:, :, 0], torch.full((3, 2, 3), 64.0))
    torch.testing.assert_close(areas[:, :, 1], torch.full((3, 2, 3), 128.0))
    ratios = (sides[..., 1] / sides[..., 0])[0, 0, 0]
    torch.testing.assert_close(ratios, torch.tensor([0.5, 1.0, 2.0]))
    centres = (anchors[..., 2:] + anchors[..., :2]) / 2
    torch.testing.assert_close(centres[2, 1, 0, 0], torch.tensor([16.0, 32.0]))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (600, 800)),
        ((640, 480), (800, 600)),
        ((500, 500), (600, 600)),
        ((100, 900), (111, 1000)),
        ((1, 5000), (3, 1000)),  # what is thinner vanishes in the network
    ],
)
def test_the_short_side_is_given_unless_the_long_one_grows_too_long(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert resized_size(size, 600, 1000) == expected


def test_boxes_go_to_another_size_and_stay_inside() -> None:
    boxes = torch.tensor([[0.0, 0.0, 50.0, 30.0], [90.0, 10.0, 130.0, 20.0]])
    found = rescale(boxes, (100, 100), (200, 50))
    expected = [[0.0, 0.0, 25.0, 60.0], [45.0, 20.0, 50.0, 40.0]]
    assert found.tolist() == expected
    assert clip(boxes, (15, 100))[0].tolist() == [0.0, 0.0, 50.0, 15.0]


def test_boxes_without_area_are_told() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 0, 1, 5], [0, 2, 3, 1], [0, 0, math.nan, 1]])
    assert not_empty(boxes).tolist() == [True, False, False, False]
