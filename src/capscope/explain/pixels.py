"""From grid cells to pixels, through the network that made the cells."""

from __future__ import annotations

from torch import Tensor

from capscope.explain.subject import Subject
from capscope.relevance.image_rules import GRADIENT, LRP


def relevance_to_pixels(subject: Subject, images: Tensor, relevance: Tensor) -> Tensor:
    """Carry the relevance of grid cells to the pixels by LRP.

    Channels that say where a cell is have no pixels behind them: their relevance ends here.

    Parameters
    ----------
    subject : Subject
    images : Tensor (B, 3, S, S)
    relevance : Tensor (B, T, N, D)

    Returns
    -------
    Tensor (B, T, S, S) summed over colour channels, sign kept.
    """
    maps = subject.network.to_maps(relevance)
    return subject.image_relevance(LRP).maps(images, maps).sum(2)


def gradient_to_pixels(subject: Subject, images: Tensor, gradient: Tensor) -> Tensor:
    """Return gradient x image (B, T, S, S) from gradients with respect to grid cells.

    Shapes as in `relevance_to_pixels`. Image means preprocessed image: a pixel of the mean colour
    of ImageNet gets nothing.
    """
    maps = subject.network.to_maps(gradient) * subject.network.scale
    found = subject.image_relevance(GRADIENT).maps(images, maps)
    return (found * images.unsqueeze(1)).sum(2)
