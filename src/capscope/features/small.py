"""The small grid network of VGG16's shape that the demo trains on scenes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from capscope.files import read_json, read_manifest
from capscope.tensors import fit, read_tensors

WEIGHTS_FILE = "model.safetensors"
INFO_FILE = "model.json"
KEYS = ("layer", "positions", "position_scale", "config")


class SmallNetwork(nn.Sequential):
    """3 x 3 convolutions, each with a rectifier; 2 x 2 maximum pooling ends every block.

    A block ends where the number of channels changes. Images (B, 3, S, S) become maps
    (B, C, S / 2^blocks, S / 2^blocks); with the default channels, 128 pixels become 8 x 8 cells.

    Parameters
    ----------
    channels : sequence of int
        Output channels of each convolution.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for (before, after), pooled in zip(
            pairwise([3, *channels]), block_ends(channels), strict=True
        ):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            if pooled:
                layers.append(nn.MaxPool2d(2))
        super().__init__(*layers)


def block_ends(channels: Sequence[int]) -> list[bool]:
    """Return for each convolution whether pooling follows it."""
    return [*(before != after for before, after in pairwise(channels)), True]


def load_small(folder: Path) -> tuple[SmallNetwork, dict[str, Any]]:
    """Load the network that `capscope.features.backbone.train_backbone` wrote.

    Returns
    -------
    network : SmallNetwork
        In evaluation mode.
    info : dict
        ``layer``, ``positions``, ``position_scale`` and ``config``, as `GridExtractor` takes them.
    """
    read_manifest(folder, "backbone")
    info = read_json(folder / INFO_FILE)
    network = SmallNetwork(**info["config"])
    path = folder / WEIGHTS_FILE
    fit(network, read_tensors(path), path)
    return network.eval(), {key: info[key] for key in KEYS}
