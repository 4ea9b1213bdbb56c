"""A matrix that many steps share, whose gradient is one product over all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from capscope.relevance.product import product

Seen = list[tuple[Tensor, Tensor]]
"""Of each step: the gradient of its output (..., M, O) and its input (..., M, I)."""


class SharedWeight:
    """Multiplies with a matrix in many steps: a weight (O, I), or one of each image (B, O, I).

    Autograd adds up a matrix for every step, which costs more than the products where the matrix
    is large and a batch is small. Here each step leaves its input and gradient behind, and when
    all steps are through, one product makes the gradient of the matrix.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.detach()
        self._transposed = self._weight.mT.contiguous()  # once, for all steps
        self._seen: Seen = []
        # Every step depends on this zero, so its backward comes after those of all steps.
        self._all_steps: Tensor = _Collect.apply(weight, self._seen)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W^T (..., O) of inputs (..., I); (B, M, O) of (B, M, I) for one each image."""
        multiplied: Tensor = _Multiply.apply(
            x, self._weight, self._transposed, self._all_steps, self._seen
        )
        return multiplied


class _Collect(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, seen: Seen) -> Tensor:
        ctx.seen = seen
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        outputs, inputs = (torch.cat(parts, -2).mT for parts in zip(*ctx.seen, strict=True))
        ctx.seen.clear()
        return _multiplied(outputs, inputs), None


class _Multiply(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, transposed: Tensor, all_steps: Tensor, seen: Seen
    ) -> Tensor:
        ctx.save_for_backward(x, transposed)
        ctx.seen = seen
        return _multiplied(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, None]:
        x, transposed = ctx.saved_tensors
        x, gradient = (
            x.to(transposed.dtype),
            gradient.to(transposed.dtype),
        )  # of autocast's bfloat16
        rows = (gradient, x)
        if transposed.dim() == 2:
            rows = (gradient.flatten(0, -2), x.flatten(0, -2))
        ctx.seen.append(rows)
        back = _multiplied(gradient, transposed) if ctx.needs_input_grad[0] else None
        return back, None, None, gradient.new_zeros(()), None


def _multiplied(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight.mT if weight.dim() == 3 else product(x, weight)
