"""Enlarge relevance grids smoothly, as Guided Grad-CAM and attention pictures do.

`pyramid_expand` is bilinear interpolation at half-pixel centres, mirrored about the border samples,
followed by a Gaussian blur; it is linear and separable, hence two matrices (Burt and Adelson 1983;
equal to the function of that name in scikit-image).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def expansion_matrix(size: int, factor: int, sigma: float | None = None) -> NDArray[np.float64]:
    """Return the matrix (size * factor, size) that enlarges one axis.

    Parameters
    ----------
    size, factor : int
        Samples of the axis and how many times as many come out.
    sigma : float, optional
        Deviation of the blur in pixels of the result; 2 factor / 6 if not given, none if 0.
    """
    from scipy.ndimage import gaussian_filter1d

    centres = (np.arange(size * factor) + 0.5) / factor - 0.5
    low = np.floor(centres).astype(int)
    matrix = np.zeros((size * factor, size))
    rows = np.arange(size * factor)
    for index, weight in ((low, 1 - (centres - low)), (low + 1, centres - low)):
        mirrored = np.abs(index)
        mirrored = np.minimum(mirrored, 2 * (size - 1) - mirrored).clip(0)
        np.add.at(matrix, (rows, mirrored), weight)
    blur = 2 * factor / 6 if sigma is None else sigma
    if blur == 0:
        return matrix
    return np.asarray(gaussian_filter1d(matrix, blur, axis=0, mode="reflect", truncate=4.0))


def pyramid_expand(maps: Tensor, factor: int, sigma: float | None = None) -> Tensor:
    """Enlarge maps (..., h, w) to (..., h * factor, w * factor); see `expansion_matrix`."""
    import torch

    rows, columns = (
        torch.from_numpy(expansion_matrix(size, factor, sigma)).to(maps) for size in maps.shape[-2:]
    )
    return rows @ maps @ columns.T
