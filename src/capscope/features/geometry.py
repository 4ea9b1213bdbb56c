"""Geometry of boxes as captioners take it: relative boxes, grid weights, relations between boxes.

A box is x0, y0, x1, y1. Grid cells have boxes too (`capscope.features.store.grid_boxes`), so that
what reads geometry reads either.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from capscope.errors import CapscopeError

LEAST_RATIO = 1e-3
"""Bound of distances (in sides of a box) and of sides (relative to the image) before logarithms."""
WAVE_LENGTH = 1000.0
EMPHASIS = 100.0
"""Factor of the deltas before their sines, as in Hu et al. and Herdade et al."""


def relative_boxes(boxes: Tensor, width: float, height: float) -> Tensor:
    """Return boxes (..., 4) in pixels relative to the image, clipped to [0, 1].

    They are computed in double precision, and come back as such.
    """
    sides = torch.tensor([width, height, width, height], dtype=torch.float64)
    if not bool((sides > 0).all()):
        raise CapscopeError(f"an image of {width:g} x {height:g} pixels has no relative boxes")
    return (boxes.double() / sides.to(boxes.device)).clamp(0, 1)


def centres_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centres x, y and the sides w, h of boxes (..., 4), each (..., 2)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def normalised_geometry(boxes: Tensor) -> Tensor:
    """Return relative boxes (..., 4) with their share of the image's area behind: (..., 5).

    Yu et al., "MAttNet", and captioners after it.
    """
    _, sides = centres_and_sides(boxes)
    return torch.cat([boxes, sides.prod(-1, keepdim=True)], -1)


def grid_overlap(boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return how much of each row and of each column of a grid boxes in [0, 1] cover.

    Lengths relative to the image, (..., side) from the top and (..., side) from the left, in
    double precision; the overlap with a cell is the product of its row's and its column's.
    """
    edges = torch.arange(side + 1, dtype=torch.float64, device=boxes.device) / side
    low, high = boxes.double()[..., :2, None], boxes.double()[..., 2:, None]
    covered = (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0)
    return covered[..., 1, :], covered[..., 0, :]


def grid_weights(boxes: Tensor, side: int, mode: Literal["box", "cell"] = "box") -> Tensor:
    """Return how boxes in [0, 1] spread over the cells of a grid, row by row: (..., side^2) float.

    Parameters
    ----------
    boxes : Tensor (..., 4)
    side : int
        Rows, and columns, of the grid.
    mode : {"box", "cell"}
        ``box``: the share of the box that lies in each cell; it adds up to 1, and its marginals are
        `grid_marginals`; 0 for an empty box. ``cell``: the share of each cell that the box covers.
    """
    if mode not in ("box", "cell"):
        raise CapscopeError(f"mode of grid weights is {mode!r}; allowed: box, cell")
    rows, columns = grid_overlap(boxes, side)
    area = (rows[..., :, None] * columns[..., None, :]).flatten(-2)
    if mode == "cell":
        return (area * side**2).float()
    _, sides = centres_and_sides(boxes.double())
    whole = sides.prod(-1, keepdim=True)
    return torch.where(whole > 0, area / whole.where(whole > 0, torch.ones_like(whole)), 0).float()


def grid_marginals(boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the sums of `grid_weights` (mode box) over columns and over rows: (..., side) each.

    The first is the share of a box's height that lies in each row, the second that of its width
    in each column: 2 x side numbers that say what all side^2 weights do.
    """
    rows, columns = grid_overlap(boxes, side)
    _, sides = centres_and_sides(boxes.double())
    empty = sides.prod(-1, keepdim=True) <= 0
    scale = sides.where(~empty, torch.ones_like(sides))
    return tuple(  # type: ignore[return-value]
        torch.where(empty, 0, covered / scale[..., axis : axis + 1]).float()
        for covered, axis in ((rows, 1), (columns, 0))
    )


def relation_deltas(boxes: Tensor, parity: bool = False) -> Tensor:
    """Return where each box stands as seen from each other: (..., N, N, 4).

    Entry i, j holds ln(|x_i - x_j| / w_i), ln(|y_i - y_j| / h_i), ln(w_i / w_j), ln(h_i / h_j) of
    centres x, y and sides w, h: Hu et al., "Relation networks" (2018).

    Parameters
    ----------
    boxes : Tensor (..., N, 4)
        In [0, 1].
    parity : bool
        True: 1 is added to all sides, as the object relation transformer does with boxes that are
        relative already. The default adds nothing.
    """
    centres, sides = centres_and_sides(boxes)
    sides = sides + 1 if parity else sides.clamp(min=LEAST_RATIO)
    distance = (centres.unsqueeze(-2) - centres.unsqueeze(-3)).abs() / sides.unsqueeze(-2)
    return torch.cat(
        [
            distance.clamp(min=LEAST_RATIO).log(),
            (sides.unsqueeze(-2) / sides.unsqueeze(-3)).log(),
        ],
        -1,
    )


def relation_features(boxes: Tensor, size: int = 64, parity: bool = False) -> Tensor:
    """Return sines and cosines of `relation_deltas` at several wave lengths: (..., N, N, size).

    Herdade et al., "Image captioning: transforming objects into words" (2019), section 3.2. Delta d
    gives the sines of 100 d / 1000^(k / K) for k = 0 ... K - 1 with K = size / 8, delta by delta;
    their cosines follow.
    """
    if size < 8 or size % 8:
        raise CapscopeError(f"relation features of size {size}: give a multiple of 8")
    deltas = relation_deltas(boxes, parity)
    steps = torch.arange(size // 8, device=boxes.device, dtype=deltas.dtype) / (size // 8)
    angles = (deltas.unsqueeze(-1) * (EMPHASIS / WAVE_LENGTH**steps)).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)
