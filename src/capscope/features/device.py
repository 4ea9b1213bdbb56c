"""Where a network computes, and how exactly."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from capscope.features.visual import Features, FeatureSource


def compute_device() -> torch.device:
    """Return the GPU if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def chosen_device(setting: str) -> torch.device:
    """Return the device of ``training.device`` (auto | cpu)."""
    return compute_device() if setting == "auto" else torch.device("cpu")


def chosen_precision(setting: str, device: torch.device) -> str:
    """Return ``bfloat16`` or ``float32`` for ``features.precision`` (auto | float32)."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if setting == "auto" and able else "float32"


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which networks compute with a precision; their weights stay float32."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a convolutional network to a device, with channels last, as its kernels like it."""
    return network.to(device).to(memory_format=torch.channels_last)


def moved(images: Tensor, device: torch.device) -> Tensor:
    """Move a batch (B, C, H, W) to a device, with channels last; a GPU need not be waited for."""
    images = images.contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        return images.pin_memory().to(device, non_blocking=True)
    return images


def on_device(source: FeatureSource, device: torch.device) -> FeatureSource:
    """Return a source whose features are on a device."""
    return source if device.type == "cpu" else _Placed(source, device)


class _Placed:
    """A source of features that moves them to a device."""

    def __init__(self, source: FeatureSource, device: torch.device) -> None:
        self.source, self.device = source, device

    def rows(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> NDArray[np.int64]:
        """Return where images are."""
        return self.source.rows(ids)

    def read(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> Features:
        """Return the features of images, on the device."""
        return self.source.read(ids).to(self.device)
