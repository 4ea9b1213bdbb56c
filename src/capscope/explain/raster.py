"""Maps on rasters of different size: pooling, coverage, smoothing, enlarging."""

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


def enlarge(maps: Tensor, size: int) -> Tensor:
    """Enlarge maps (..., h, w) to (..., size, size), bilinear; the total is kept."""
    area = maps.shape[-2] * maps.shape[-1] / size**2
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    large = functional.interpolate(flat, (size, size), mode="bilinear", align_corners=False)
    return large.reshape(*maps.shape[:-2], size, size) * area
