"""Two controls that need no model: noise, and the centre of the image."""

from __future__ import annotations

import torch
from torch import Tensor


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return maps of independent standard normal relevance."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def centre(shape: tuple[int, ...]) -> Tensor:
    """Return maps (..., h, w) with a Gaussian, a quarter of the image wide, in the middle."""
    height, width = shape[-2:]
    rows = (torch.arange(height) + 0.5) / height - 0.5
    columns = (torch.arange(width) + 0.5) / width - 0.5
    squared = rows.unsqueeze(1) ** 2 + columns**2
    return torch.exp(-squared / (2 * 0.25**2)).expand(shape)


def centre_of_boxes(boxes: Tensor) -> Tensor:
    """Return the same Gaussian at the middles of boxes (N, 4) in [0, 1], as a map (N, 1)."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
    return torch.exp(-middles.square().sum(1, keepdim=True) / (2 * 0.25**2))
