"""Where the entries of a map are: cells of a raster, or boxes of regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capscope.explain.raster import at_centres, coverage
from capscope.explain.store import StoredRelevance

Boxes = Tensor
"""(N, 4) x0, y0, x1, y1 in [0, 1]; of regions, whose maps are (T, N, 1). Padding is empty."""


def boxes_of(stored: StoredRelevance, resolution: str) -> Boxes | None:
    """Return the boxes behind the maps of a resolution; None if they are rasters."""
    return stored.boxes if resolution == "grid" else None


def present(stored: StoredRelevance) -> Tensor:
    """Return which visual features (N,) are there: all cells, and regions that are no padding."""
    if stored.boxes is None:
        return torch.ones(stored.grid.shape[1] * stored.grid.shape[2], dtype=torch.bool)
    return area(stored.boxes) > 0


def area(boxes: Boxes) -> Tensor:
    """Return the share (N,) of the image in each box."""
    x0, y0, x1, y1 = boxes.unbind(1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)


def masks_on(masks: Tensor, shape: Sequence[int], boxes: Boxes | None) -> Tensor:
    """Return how much of each entry of a map each mask covers.

    Parameters
    ----------
    masks : Tensor (K, H, W) bool
    shape : (h, w)
        Of the map.
    boxes : Tensor (h, 4) or None
        Where the entries are, if the map is no raster; then w is 1.

    Returns
    -------
    Tensor (K, h, w) in [0, 1]; 0 for padding.
    """
    if boxes is None:
        return coverage(masks, *shape)
    x0, y0, x1, y1 = boxes.unbind(1)
    rows, columns = covered(y0, y1, masks.shape[1]), covered(x0, x1, masks.shape[2])
    inside = torch.einsum("khw,nh,nw->kn", masks.to(rows), rows, columns)
    whole = rows.sum(1) * columns.sum(1)
    return torch.where(whole > 0, inside / whole.clamp(min=1e-12), 0.0).unsqueeze(2)


def masks_at(masks: Tensor, shape: Sequence[int], boxes: Boxes | None) -> Tensor:
    """Return whether each mask shows at the centre of each entry: (K, h, w) bool."""
    if boxes is None:
        return at_centres(masks, *shape)
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    rows = (y * masks.shape[1]).long().clamp(0, masks.shape[1] - 1)
    columns = (x * masks.shape[2]).long().clamp(0, masks.shape[2] - 1)
    shown = masks[:, rows, columns] & (area(boxes) > 0)
    return shown.unsqueeze(2)


def boxes_on(targets: Boxes, shape: Sequence[int], boxes: Boxes | None) -> Tensor:
    """Return how much of each entry of a map each target box covers: (K, h, w) in [0, 1].

    Parameters
    ----------
    targets : Tensor (K, 4)
    shape, boxes
        As for `masks_on`.
    """
    x0, y0, x1, y1 = targets.unbind(1)
    if boxes is None:
        rows, columns = covered(y0, y1, shape[0]), covered(x0, x1, shape[1])
        return rows.unsqueeze(2) * columns.unsqueeze(1)
    left, top, right, bottom = boxes.to(targets).unbind(1)
    across = torch.minimum(x1[:, None], right) - torch.maximum(x0[:, None], left)
    down = torch.minimum(y1[:, None], bottom) - torch.maximum(y0[:, None], top)
    shared = across.clamp(min=0) * down.clamp(min=0)
    whole = area(boxes).to(targets)
    return torch.where(whole > 0, shared / whole.clamp(min=1e-12), 0.0).unsqueeze(2)


def covered(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Return the share of each of `cells` that each interval (K,) in [0, 1] covers: (K, cells)."""
    edges = torch.arange(cells + 1).to(low)
    low, high = (low * cells).unsqueeze(1), (high * cells).unsqueeze(1)
    return (torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(0, 1)
