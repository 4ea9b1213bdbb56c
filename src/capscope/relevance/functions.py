"""Steps whose backward is no derivative: forward is plain, backward a stored ratio."""

# ruff: noqa: D102  the methods are those of torch.autograd.Function

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[[Tensor], Tensor]


class Passing(torch.autograd.Function):
    """F.linear whose backward passes over the rows at which no multiplier arrives.

    In a decoder these are half of all: nothing arrives at the steps behind an explained word, and
    in the last layer at no step but its own.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.weight = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        passed: Tensor = RowProduct.apply(gradients[0], ctx.weight)
        return passed, None, None


class RowProduct(torch.autograd.Function):
    """Rows times a matrix, but for rows of zeros."""

    @staticmethod
    def forward(rows: Tensor, weight: Tensor) -> Tensor:
        flat = rows.flatten(0, -2)
        some = flat.any(1)
        found = flat.new_zeros(len(flat), weight.shape[1])
        found[some] = flat[some] @ weight
        return found.view(*rows.shape[:-1], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        return

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        rows, weight = inputs
        return RowProduct.forward(rows.movedim(in_dims[0] or 0, 0), weight), 0


class Carried(torch.autograd.Function):
    """F.linear whose backward goes through a part of the rows of the weight only."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, rows: slice) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.weight, ctx.rows = inputs[1], inputs[3]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        return gradients[0][..., ctx.rows].contiguous() @ ctx.weight[ctx.rows], None, None, None


class Activation(torch.autograd.Function):
    """An activation with a(0) = 0 whose backward multiplies by its secant, or by 1."""

    @staticmethod
    def forward(z: Tensor, function: Function, slope: float | None) -> Tensor:
        return function(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, _, slope = inputs
        ctx.ratio = None if slope is None else torch.where(z == 0, slope, output / z)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return gradients[0] if ctx.ratio is None else gradients[0] * ctx.ratio, None, None


class RectifiedSum(torch.autograd.Function):
    """A rectified weighted sum: the secant of the rectifier and the epsilon rule in one ratio."""

    @staticmethod
    def forward(z: Tensor, epsilon: float) -> Tensor:
        return torch.relu(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        epsilon = inputs[1]
        ctx.ratio = output / (output + epsilon) if epsilon else (output > 0).to(output.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0] * ctx.ratio, None


class Guided(torch.autograd.Function):
    """A rectifier whose backward lets positive multipliers through, where it is open."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return torch.relu(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.open = output > 0

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        return torch.where(ctx.open, gradients[0].clamp(min=0), 0.0)


class Standardised(torch.autograd.Function):
    """Layer normalisation whose backward takes the deviation as a constant.

    `share` says, of the result, how much a stabiliser lets pass, so that backward scales once.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, share: Function) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, epsilon, share = inputs
        deviation = (x.var(-1, correction=0, keepdim=True) + epsilon).sqrt()
        ctx.ratio = share(output) * weight / deviation

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None, None]:
        scaled = gradients[0] * ctx.ratio
        return scaled - scaled.mean(-1, keepdim=True), None, None, None, None
