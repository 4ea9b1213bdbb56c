"""Maps on rasters of different size: pooling, coverage, smoothing, enlarging, painting."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def overlap(source: int, target: int) -> Tensor:
    """Return the share of each of `source` pixels that lies in each of `target` cells.

    Both divide the same length evenly. The matrix (target, source) has columns that sum to one,
    so that pooling with it keeps sums whether or not `target` divides `source`.
    """
    pixels = torch.arange(source, dtype=torch.float64) * target / source
    cells = torch.arange(target, dtype=torch.float64).unsqueeze(1)
    high = torch.minimum(cells + 1, pixels + target / source)
    shared = (high - torch.maximum(cells, pixels)).clamp(min=0)
    return (shared / shared.sum(0)).float()


def sum_pool(maps: Tensor, height: int, width: int) -> Tensor:
    """Sum maps (..., H, W) down to (..., height, width); the total is kept."""
    rows = overlap(maps.shape[-2], height).to(maps)
    columns = overlap(maps.shape[-1], width).to(maps)
    return rows @ maps @ columns.T


def coverage(masks: Tensor, height: int, width: int) -> Tensor:
    """Return the share of each cell that each mask covers.

    Parameters
    ----------
    masks : Tensor (K, H, W) bool
    height, width : int
        The raster of the maps that the masks are held against.

    Returns
    -------
    Tensor (K, height, width) float in [0, 1]
    """
    area = masks.shape[-2] * masks.shape[-1] / (height * width)
    return sum_pool(masks.float(), height, width) / area


def at_centres(masks: Tensor, height: int, width: int) -> Tensor:
    """Return whether each mask (K, H, W) shows at the centre of each cell: (K, height, width)."""
    rows = ((torch.arange(height) + 0.5) * masks.shape[-2] / height).long()
    columns = ((torch.arange(width) + 0.5) * masks.shape[-1] / width).long()
    return masks[:, rows][:, :, columns]


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Smooth maps (..., H, W) by a Gaussian of `sigma` cells, edges repeated; 0 changes nothing.

    The kernel is cut at three sigma.
    """
    radius = min(round(3 * sigma), maps.shape[-1] - 1, maps.shape[-2] - 1)
    if radius < 1:
        return maps
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    flat = functional.pad(flat, (radius,) * 4, mode="replicate")
    flat = functional.conv2d(flat, kernel.view(1, 1, 1, -1))
    return functional.conv2d(flat, kernel.view(1, 1, -1, 1)).reshape(maps.shape)


def paint(relevance: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Paint the relevance of regions over their boxes; where boxes overlap, it adds up.

    A box is painted with its relevance, not with relevance over area: a pixel says how much the
    regions that it lies in speak for the word, and the most relevant region points, however large.
    Over area, the smallest region that has any relevance would win. In return the sum over a map
    counts a region by its area.

    Parameters
    ----------
    relevance : Tensor (B, T, N)
        Signed relevance of each region for each word.
    boxes : Tensor (B, N, 4)
        x0, y0, x1, y1 in [0, 1]; empty boxes (padding) paint nothing.
    size : int

    Returns
    -------
    Tensor (B, T, size, size)
        A pixel that a box covers in part gets that part of its relevance.
    """
    edges = torch.arange(size + 1, device=boxes.device) / size
    x0, y0, x1, y1 = boxes.unsqueeze(-1).unbind(2)

    def covered(low: Tensor, high: Tensor) -> Tensor:
        inside = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
        return inside.clamp(min=0) * size

    rows, columns = covered(y0, y1), covered(x0, x1)
    painted = relevance.unsqueeze(-1) * rows.unsqueeze(1)
    return painted.transpose(-1, -2) @ columns.unsqueeze(1)


def enlarge(maps: Tensor, size: int) -> Tensor:
    """Enlarge maps (..., h, w) to (..., size, size), bilinear; the total is kept."""
    area = maps.shape[-2] * maps.shape[-1] / size**2
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    large = functional.interpolate(flat, (size, size), mode="bilinear", align_corners=False)
    return large.reshape(*maps.shape[:-2], size, size) * area
