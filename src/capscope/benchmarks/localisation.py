"""Does relevance lie on the object? Pointing game, mass and rank accuracy, choice.

All take signed maps (summed over channels, sign kept) on any raster: clamping channels
before the sum would give even an untrained decoder a map of the image's contrast.

Pointing game: J. Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018.
Mass and rank accuracy: L. Arras et al., "CLEVR-XAI", Information Fusion 81, 2022.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pointing_hit(maps: Tensor, shown: Tensor) -> Tensor:
    """Return whether the largest relevance lies on the target.

    Parameters
    ----------
    maps : Tensor (n, h, w)
        Signed relevance of n words.
    shown : Tensor (n, h, w) bool
        Whether the target of each word shows at the centre of each cell.

    Returns
    -------
    Tensor (n,) in [0, 1]
        Where several cells share the maximum, the share of them on the target: a constant map
        scores chance.
    """
    flat = maps.flatten(1)
    largest = flat == flat.amax(1, keepdim=True)
    return (largest & shown.flatten(1)).sum(1) / largest.sum(1)


def relevance_mass(maps: Tensor, covered: Tensor) -> Tensor:
    """Return the share of positive relevance on the target (mass accuracy).

    Parameters
    ----------
    maps : Tensor (n, h, w)
    covered : Tensor (n, h, w)
        Share of each cell that the target covers.

    Returns
    -------
    Tensor (n,) in [0, 1]; 0 where a map has no positive relevance.
    """
    positive = maps.clamp(min=0).flatten(1)
    inside = (positive * covered.flatten(1)).sum(1)
    total = positive.sum(1)
    return torch.where(total > 0, inside / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)


def rank_accuracy(maps: Tensor, shown: Tensor) -> Tensor:
    """Return the share of the most relevant cells that show the target.

    As many cells are counted as show the target, so that 1 is possible for every target, and the
    share of the image that it covers is chance. Unlike the mass, it does not matter how much more
    relevant a cell is.

    Parameters
    ----------
    maps : Tensor (n, h, w)
        Signed relevance of n words.
    shown : Tensor (n, h, w) bool
        Whether the target of each word shows at the centre of each cell.

    Returns
    -------
    Tensor (n,) in [0, 1]
        Cells that tie for the last places count by the share of them that show the target; 0
        where the target shows nowhere.
    """
    flat, target = maps.flatten(1), shown.flatten(1)
    size = target.sum(1, keepdim=True)
    ascending = torch.from_numpy(np.sort(flat.numpy(), axis=1))  # many times as fast as torch's
    last = ascending.gather(1, flat.shape[1] - size.clamp(min=1))
    above, tied = flat > last, flat == last
    places = size - above.sum(1, keepdim=True)
    tied_hits = (tied & target).sum(1, keepdim=True) * places / tied.sum(1, keepdim=True)
    hits = (above & target).sum(1, keepdim=True) + tied_hits
    return torch.where(size > 0, hits / size.clamp(min=1), 0.0).squeeze(1)


def object_relevance(maps: Tensor, covered: Tensor) -> Tensor:
    """Return the relevance of each object: maps (n, h, w), coverage (K, h, w) -> (n, K)."""
    return maps.flatten(1) @ covered.flatten(1).T


def choice(scores: Tensor, targets: Tensor) -> Tensor:
    """Return whether a target has the highest score among the depicted objects.

    Parameters
    ----------
    scores : Tensor (n, K)
        Relevance of each object for each word.
    targets : Tensor (n, K) bool
        The objects that the word names.

    Returns
    -------
    Tensor (n,) in [0, 1]
        Where several objects tie, the share of them that are targets.
    """
    highest = scores == scores.amax(1, keepdim=True)
    return (highest & targets).sum(1) / highest.sum(1)
