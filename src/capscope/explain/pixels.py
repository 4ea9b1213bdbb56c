"""From grid cells to pixels: through the network that made the cells, or by enlarging."""

from __future__ import annotations

from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.raster import enlarge
from capscope.explain.subject import Subject
from capscope.relevance.image_rules import GRADIENT, LRP, ImageRules
from capscope.relevance.image_upscale import pyramid_expand


def relevance_to_pixels(
    subject: Subject, images: Tensor, relevance: Tensor, rules: ImageRules = LRP
) -> Tensor:
    """Carry the relevance of grid cells to the pixels by LRP.

    Channels that say where a cell is have no pixels behind them: their relevance ends here.

    Parameters
    ----------
    subject : Subject
    images : Tensor (B, 3, S, S)
    relevance : Tensor (B, T, N, D)
    rules : ImageRules
        Rules that carry relevance.

    Returns
    -------
    Tensor (B, T, S, S) summed over colour channels, sign kept.
    """
    maps = subject.network.to_maps(relevance)
    return subject.image_relevance(rules).maps(images, maps).sum(2)


def gradient_to_pixels(
    subject: Subject, images: Tensor, gradient: Tensor, rules: ImageRules = GRADIENT
) -> Tensor:
    """Return gradients (B, T, 3, S, S) from gradients (B, T, N, D) with respect to grid cells.

    Image means preprocessed image: pixels are in units of the deviation of ImageNet's colours.
    """
    maps = subject.network.to_maps(gradient) * subject.network.scale
    return subject.image_relevance(rules).maps(images, maps)


def enlarged(subject: Subject, grid: Tensor, size: int, *, parity: bool = False) -> Tensor:
    """Enlarge maps of grid cells (B, T, N) to pixels (B, T, size, size).

    Bilinear, the total kept; with `parity` smooth and the height kept (`pyramid_expand`), for which
    `size` must be a multiple of the grid.
    """
    height, width = subject.network.grid
    maps = grid.reshape(*grid.shape[:2], height, width)
    if not parity:
        return enlarge(maps, size)
    if size % height or size % width:
        raise CapscopeError(
            f"the published enlargement needs an image size that is a multiple of the grid, not "
            f"{size} pixels over {height} x {width} cells: explain without parity"
        )
    return pyramid_expand(maps, size // height)
