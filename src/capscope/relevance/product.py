"""Matrix products by oneDNN, where torch's own take longer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from capscope.relevance.operations import products_by

SMALLEST = 1 << 22
"""Multiplications from which the detour is worth it."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b (..., O) of inputs (..., I) and a weight (O, I), differentiable in all.

    On a CPU, torch leaves this to a library (MKL) that knows the widest instructions of one maker
    only; elsewhere oneDNN, which torch has on board too, takes half the time. Both round alike, to
    about 1e-7, but not to the same bits: operations that must not differ use `functional.linear`.
    """
    if not _by_onednn(x, weight):
        return functional.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1]).to_mkldnn()
    found: Tensor = functional.linear(flat, weight, bias).to_dense()
    return found.view(*x.shape[:-1], len(weight))


def fastest_products() -> AbstractContextManager[None]:
    """Return the context in which plain operations take `product`: for searches and training."""
    return products_by(product)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    backend: Any = torch.backends.mkldnn
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= SMALLEST
        and bool(backend.is_available() and backend.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
