"""A weight that many steps share, whose gradient is one product over all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

Seen = list[tuple[Tensor, Tensor]]
"""Of each step: the gradient of its output (M, O) and its input (M, I)."""


class SharedWeight:
    """Multiplies with a weight (O, I) in many steps.

    Autograd adds up an (O, I) matrix for every step, which costs more than the products where the
    weight is large and a batch is small. Here each step leaves its input and gradient behind, and
    when all steps are through, one product makes the gradient of the weight.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.detach()
        self._seen: Seen = []
        # Every step depends on this zero, so its backward comes after those of all steps.
        self._all_steps: Tensor = _Collect.apply(weight, self._seen)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W^T (..., O) of inputs (..., I)."""
        product: Tensor = _Multiply.apply(x, self._weight, self._all_steps, self._seen)
        return product


class _Collect(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, seen: Seen) -> Tensor:
        ctx.seen = seen
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        outputs, inputs = zip(*ctx.seen, strict=True)
        ctx.seen.clear()
        return torch.cat(outputs).T @ torch.cat(inputs), None


class _Multiply(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, all_steps: Tensor, seen: Seen) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.seen = seen
        return functional.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor, None]:
        x, weight = ctx.saved_tensors
        ctx.seen.append((gradient.flatten(0, -2), x.flatten(0, -2)))
        back = gradient @ weight if ctx.needs_input_grad[0] else None
        return back, None, gradient.new_zeros(()), None
