"""Boxes x0, y0, x1, y1 in continuous coordinates: anchors, decoding, resizing.

Nothing here adds 1 to a width: a box from 0 to 2 is 2 pixels wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

RATIOS = (0.5, 1.0, 2.0)
STRIDE = 16
LARGEST_GROWTH = math.log(1000 / STRIDE)
"""Bound of the predicted logarithm of a side's growth."""

SMALLEST = 3
"""Pixels of the shorter side at least: fewer vanish in the network."""

Size = tuple[int, int]
"""Height and width in pixels."""


def resized_size(size: Size, short_side: int, long_side: int) -> Size:
    """Return the size at which an image goes into the network.

    The short side becomes `short_side`, unless the long one would exceed `long_side`.
    """
    height, width = size
    scale = short_side / min(height, width)
    wide, high = (scale * width, short_side) if height < width else (short_side, scale * height)
    if max(high, wide) > long_side:
        shrink = long_side / max(high, wide)
        high, wide = high * shrink, wide * shrink
    return max(SMALLEST, int(high + 0.5)), max(SMALLEST, int(wide + 0.5))


def anchor_boxes(sizes: Sequence[float], grid: Size) -> Tensor:
    """Return the anchors (h*w*A, 4) of an h x w grid, by row, column, size and ratio.

    They are centred on the upper left corner of their cell, and not rounded (the Caffe original
    does neither).
    """
    shapes = [(math.sqrt(size**2 / ratio), ratio) for size in sizes for ratio in RATIOS]
    cell = torch.tensor([(-w / 2, -r * w / 2, w / 2, r * w / 2) for w, r in shapes])
    rows, columns = (torch.arange(0, n * STRIDE, STRIDE, dtype=torch.float32) for n in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (corners + cell).reshape(-1, 4)


def decode(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Move and stretch boxes (N, 4) by deltas (N, 4): Girshick et al., 2014, appendix C.

    A delta is dx, dy (shift of the centre in widths and heights) and dw, dh (logarithms of the
    growth), each multiplied by its weight.
    """
    corner, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    centre = corner + 0.5 * sides
    shift = deltas[:, :2] / deltas.new_tensor(weights[:2])
    growth = (deltas[:, 2:] / deltas.new_tensor(weights[2:])).clamp(max=LARGEST_GROWTH)
    centre = shift * sides + centre
    half = 0.5 * (torch.exp(growth) * sides)
    return torch.cat([centre - half, centre + half], 1)


def clip(boxes: Tensor, size: Size) -> Tensor:
    """Return the parts of boxes (..., 4) inside an image of height and width `size`."""
    clipped: Tensor = clip_boxes_to_image(boxes, size)
    return clipped


def rescale(boxes: Tensor, before: Size, after: Size) -> Tensor:
    """Carry boxes (N, 4) from an image resized to `before` to one of size `after`, and clip."""
    factors = [after[1] / before[1], after[0] / before[0]] * 2
    return clip(boxes * boxes.new_tensor(factors), after)


def not_empty(boxes: Tensor) -> Tensor:
    """Say which boxes (N, 4) have a positive width and height: (N,) bool."""
    return ((boxes[:, 2] - boxes[:, 0]) > 0) & ((boxes[:, 3] - boxes[:, 1]) > 0)
