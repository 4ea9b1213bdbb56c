"""A bottom-up detector of a few channels with random weights, for tests."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from capscope.features.detector.backend import Found
from capscope.features.detector.inputs import Preparation
from capscope.features.detector.network import BottomUpNetwork, Dimensions

TOY = Dimensions((3, 4, 6), stem=8, width=4, outputs=16, hidden=16, classes=12, attributes=5)
SIZES = (16, 32, 64, 128)


def toy_network(
    sizes: Dimensions = TOY, *, proposals: int = 60, short_side: int = 96, seed: int = 0
) -> BottomUpNetwork:
    """Return a network whose activations, boxes and class scores are of sensible size."""
    network = BottomUpNetwork(
        sizes, Preparation(short_side, 2 * short_side), anchor_sizes=SIZES, proposals=proposals
    )
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if "norm" not in name:
            scale = 0.3 if "deltas" in name or "bbox_pred" in name else 2.0
            tensor.normal_(0, scale / tensor[0].numel() ** 0.5, generator=rng)
    network.eval().requires_grad_(False)
    with settling(network):
        (image,) = pictures([(64, 80)], seed)
        maps = network.maps(network.prepare(image)[None])
        network.describe(maps, network.propose(maps, (short_side, short_side)), (0, 0))
    return network


@contextmanager
def settling(network: nn.Module) -> Iterator[None]:
    """Set the statistics of each frozen norm to those of what it sees first."""

    def settle(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        norm.load_state_dict(
            {**norm.state_dict(), "running_mean": mean, "running_var": variance + 0.01}
        )

    norms = [m for m in network.modules() if isinstance(m, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pictures(sizes: list[tuple[int, int]], seed: int = 0) -> list[NDArray[np.uint8]]:
    """Return RGB images of these heights and widths: noise, coarse enough to survive resizing."""
    rng = np.random.default_rng(seed)
    coarse = [rng.integers(0, 256, (-(-h // 8), -(-w // 8), 3), np.uint8) for h, w in sizes]
    return [
        one.repeat(8, 0).repeat(8, 1)[:h, :w] for one, (h, w) in zip(coarse, sizes, strict=True)
    ]


def random_found(
    rng: np.random.Generator, count: int, classes: int, size: tuple[int, int]
) -> Found:
    """Return boxes that overlap a lot, and logits that favour few classes."""
    extent = np.array([size[1], size[0]])
    centres = rng.uniform(0.2, 0.8, (count, 2)) * extent
    sides = rng.uniform(0.1, 0.5, (count, 2)) * extent
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    limits = np.concatenate([extent, extent])
    logits = rng.normal(0, 2, (count, classes + 1))
    return Found(
        torch.from_numpy(boxes.clip(0, limits)).float(),
        torch.arange(count)[:, None].float(),
        torch.from_numpy(logits).float(),
        torch.from_numpy(rng.normal(0, 1, (count, 4 * classes))).float(),
        torch.from_numpy(rng.normal(0, 1, (count, 4))).float(),
    )


def write_published(path: Path, network: nn.Module, **more: Any) -> dict[str, Tensor]:
    """Write weights as detectron2 publishes them: a pickled dict of arrays."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    content = {"model": arrays, "__author__": "someone", **more}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return state
