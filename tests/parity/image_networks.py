"""Networks of the fixtures, built from what the fixture files say."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden"))


class Golden:
    """Arrays of one fixture file; those that are not numbers stay as they are."""

    def __init__(self, name: str) -> None:
        path = GOLDEN / name
        if not path.exists():
            pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
        self.arrays = np.load(path)
        self.meta = json.loads(str(self.arrays["meta"]))

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def __contains__(self, key: str) -> bool:
        return key in self.arrays.files

    def keys(self, prefix: str) -> list[str]:
        """Return the names that start with `prefix`, without it."""
        return [k[len(prefix) :] for k in self.arrays.files if k.startswith(prefix)]

    def weights(self, prefix: str) -> dict[str, Tensor]:
        return {key: self[prefix + key] for key in self.keys(prefix)}


def vgg(cfg: list[int | str], weights: dict[str, Tensor]) -> nn.Sequential:
    """Build a VGG stack from its configuration; a final "M" is left out, as for features."""
    modules: list[nn.Module] = []
    channels = 3
    for entry in cfg[:-1] if cfg[-1] == "M" else cfg:
        if entry == "M":
            modules.append(nn.MaxPool2d(2, 2))
        else:
            modules += [nn.Conv2d(channels, int(entry), 3, padding=1), nn.ReLU(inplace=True)]
            channels = int(entry)
    network = nn.Sequential(*modules)
    network.load_state_dict(weights)
    return network.eval()


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut, one rectifier module for all."""

    def __init__(self, weights: dict[str, Tensor], stride: int) -> None:
        super().__init__()
        for index in (1, 2, 3):
            weight = weights[f"conv{index}.weight"]
            kernel = weight.shape[-1]
            steps = stride if index == 2 else 1
            shape = (weight.shape[1], weight.shape[0], kernel, steps, kernel // 2)
            setattr(self, f"conv{index}", nn.Conv2d(*shape, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(weight.shape[0]))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if "downsample.0.weight" in weights:
            out, channels = weights["downsample.0.weight"].shape[:2]
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def residual(weights: dict[str, Tensor]) -> nn.Sequential:
    """Build the stem and blocks of the residual fixture; blocks with a shortcut have stride 2."""
    stem = weights["0.weight"]
    modules: list[nn.Module] = [
        nn.Conv2d(stem.shape[1], stem.shape[0], stem.shape[-1], 2, stem.shape[-1] // 2, bias=False),
        nn.BatchNorm2d(stem.shape[0]),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    blocks = sorted({key.split(".")[0] for key in weights if ".conv1." in key}, key=int)
    for block in blocks:
        own = {k.removeprefix(f"{block}."): v for k, v in weights.items() if k.startswith(block)}
        modules.append(Bottleneck(own, 2 if "downsample.0.weight" in own else 1))
    network = nn.Sequential(*modules)
    network.load_state_dict(weights)
    return network.eval()


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare relative to the expected array's maximum."""
    expected = expected.to(found.dtype)
    error = (found - expected).abs().max().item()
    assert error <= tolerance * expected.abs().max().item() + 1e-12
