"""Segments: how much of each class is in each cell of a grid, a second visual flow (DIFNet).

They come from labels of all pixels, pooled, or from a linear classifier of the cells themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from capscope.errors import CapscopeError
from capscope.tensors import fit, read_metadata, read_tensors, write_tensors

SEGMENTS_FILE = "segments.safetensors"


def pooled_labels(labels: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """Return the mean of one-hot labels over each cell of a grid, row by row: (h*w, classes).

    Parameters
    ----------
    labels : Tensor (H, W) integer
        The class of each pixel; a number below 0 is none.
    classes : int
    grid : (h, w)
        Cells are those of adaptive average pooling: where h does not divide H, they overlap by a
        row of pixels.
    """
    if labels.ndim != 2 or 0 in labels.shape or int(labels.max()) >= classes:
        raise CapscopeError(
            f"labels {tuple(labels.shape)} up to {int(labels.max())}: {classes} classes"
        )
    pooled = torch.zeros(grid[0] * grid[1], classes)
    shown = torch.unique(labels)
    shown = shown[shown >= 0]  # of 133 classes, an image shows few
    if len(shown):
        single = (labels == shown[:, None, None]).float()
        pooled[:, shown.long()] = functional.adaptive_avg_pool2d(single, grid).flatten(1).T
    return pooled


class CellClassifier(nn.Module):
    """Tells the classes of grid cells: probabilities of a linear layer on their activations.

    Attributes
    ----------
    names : tuple of str
        The classes.
    """

    def __init__(self, channels: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.linear = nn.Linear(channels, len(names))
        self.eval().requires_grad_(False)

    @classmethod
    def of(cls, head: nn.Conv2d, names: Sequence[str]) -> CellClassifier:
        """Return the classifier that a trained 1 x 1 convolution on the maps is."""
        made = cls(head.in_channels, names)
        made.linear.weight.copy_(head.weight.detach().flatten(1))
        assert head.bias is not None
        made.linear.bias.copy_(head.bias.detach())
        return made

    def forward(self, cells: Tensor) -> Tensor:
        """Return probabilities (..., h*w, S) of cells (..., h*w, C), as the network gives them."""
        return self.linear(cells).softmax(-1)  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        """Write ``segments.safetensors``."""
        metadata = {"names": json.dumps(self.names)}
        write_tensors(folder / SEGMENTS_FILE, self.state_dict(), metadata)

    @classmethod
    def load(cls, folder: Path) -> CellClassifier:
        """Read what `save` wrote."""
        path = folder / SEGMENTS_FILE
        tensors = read_tensors(path)
        try:
            names = json.loads(read_metadata(path)["names"])
            made = cls(tensors["linear.weight"].shape[1], names)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CapscopeError(f"{path} holds no classifier of cells: {error}") from error
        fit(made, tensors, path)
        return made
