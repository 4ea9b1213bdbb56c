"""The layers of a convolutional network, able to send relevance back.

Calling a step returns its output and the way back: a function from the output's multiplier (see
`image_weighted`) to one multiplier for each input.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from capscope.errors import CapscopeError
from capscope.relevance.image_graph import IMAGE, Layer
from capscope.relevance.image_rules import ImageRules
from capscope.relevance.image_weighted import Back, Weighted, divide, scale


class Step(Protocol):
    """What a layer does."""

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""


def build(layer: Layer, rules: ImageRules, *, nonnegative: bool, rectified: bool) -> Step:
    """Return the step of `layer` under `rules`.

    Parameters
    ----------
    layer : Layer
        Its description.
    rules : ImageRules
        The rules of all kinds of layer.
    nonnegative : bool
        Whether its inputs are never negative.
    rectified : bool
        Whether a rectifier alone reads its output: relevance then exists only where the output is
        positive, and the rectifier passes multipliers on.
    """
    relevance = rules.carries == "relevance"
    match layer.kind:
        case "convolution" | "linear":
            first = IMAGE in layer.sources
            rule = rules.convolution if layer.kind == "convolution" else rules.linear
            if first and rules.first is not None:
                rule = rules.first
            return Weighted(layer, rule, relevance and first, nonnegative, rectified)
        case "batch_norm":
            return BatchNorm(layer, rules.batch_norm if relevance else None, rectified)
        case "rectifier":
            return Rectifier(guided=rules.carries == "guided")
        case "max_pool":
            return MaxPool(layer)
        case "average_pool" | "adaptive_average_pool":
            return AveragePool(layer)
        case "sum":
            return Sum(rules.sum_epsilon if relevance else None, rectified)
        case "concatenation":
            return concatenate
        case "flatten":
            return flatten
    return Passage()


class BatchNorm:
    """Batch norm in evaluation mode, x -> w x + b; `rule` None means the gradient."""

    def __init__(self, layer: Layer, rule: str | None, rectified: bool) -> None:
        self.scale: Tensor = layer.options["scale"]
        self.shift: Tensor = layer.options["shift"]
        self.rule = rule
        self.rectified = rectified

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""
        (x,) = inputs
        shape = (-1, *[1] * (x.dim() - 2))
        weight, bias = self.scale.reshape(shape), self.shift.reshape(shape)
        output = weight * x + bias
        active = output.clamp(min=0) if self.rectified else output
        if self.rule is None:
            factor = weight.expand_as(x)
        elif self.rule == "identity":
            factor = divide(active, x)
        else:
            share = active * weight.abs() * x.sign()
            factor = divide(share, (weight * x).abs() + bias.abs())
        return output, lambda multiplier: (scale(multiplier, factor),)


class Rectifier:
    """ReLU; `guided` lets positive gradients through only."""

    def __init__(self, guided: bool) -> None:
        self.guided = guided

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""
        (x,) = inputs
        output = x.clamp(min=0)
        active = (output > 0).to(x.dtype)

        def back(multiplier: Tensor) -> tuple[Tensor, ...]:
            kept = multiplier.clamp(min=0) if self.guided else multiplier
            return (scale(kept, active),)

        return output, back


class Passage:
    """Identity in backward: dropout, identity, and rectifiers that need no mask of their own."""

    def __init__(self, rectify: bool = False) -> None:
        self.rectify = rectify

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""
        (x,) = inputs
        return x.clamp(min=0) if self.rectify else x, lambda multiplier: (multiplier,)


class MaxPool:
    """Max pooling: everything goes to the largest input, the first one among equals."""

    def __init__(self, layer: Layer) -> None:
        options = layer.options
        self.kernel = _pair(options["kernel_size"])
        stride = options.get("stride")
        self.stride = self.kernel if stride in (None, []) else _pair(stride)
        self.padding = _pair(options.get("padding", 0))
        self.dilation = _pair(options.get("dilation", 1))
        self.ceil_mode = bool(options.get("ceil_mode", False))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""
        (x,) = inputs
        output, indices = functional.max_pool2d(
            x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, True
        )
        height, width = x.shape[2:]
        rows, columns = self.kernel
        apart = self.kernel == self.stride and self.padding == (0, 0) and self.dilation == (1, 1)
        if apart and height % rows == 0 and width % columns == 0:
            return output, self._tiles(x, indices)

        def back(multiplier: Tensor) -> tuple[Tensor, ...]:
            maps = len(multiplier) // len(x)
            where = indices.repeat_interleave(maps, 0)
            like = multiplier.new_empty((len(multiplier), *x.shape[1:]))
            sent = torch.ops.aten.max_pool2d_with_indices_backward(
                multiplier.contiguous(memory_format=torch.channels_last),
                like.contiguous(memory_format=torch.channels_last),
                self.kernel,
                self.stride,
                self.padding,
                self.dilation,
                self.ceil_mode,
                where.contiguous(memory_format=torch.channels_last),
            )
            return (sent,)

        return output, back

    def _tiles(self, x: Tensor, indices: Tensor) -> Back:
        """Return the way back where windows do not overlap: spread, then keep the arg-maxima."""
        height, width = x.shape[2:]
        rows, columns = self.kernel
        place = torch.arange(height * width, device=x.device)
        place = place.reshape(height // rows, rows, -1, columns, 1)
        winner = indices.permute(0, 2, 3, 1)[:, :, None, :, None]
        mask = (winner == place).to(x.dtype)  # (b, h, rows, w, columns, C)

        def back(multiplier: Tensor) -> tuple[Tensor, ...]:
            spread = multiplier.permute(0, 2, 3, 1)[:, :, None, :, None]
            sent = scale(spread, mask)
            return (sent.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2),)

        return back


class AveragePool:
    """Average pooling, fixed or adaptive: in proportion to the inputs."""

    def __init__(self, layer: Layer) -> None:
        options = layer.options
        self.size = options.get("output_size")
        if layer.kind == "average_pool":
            self.kernel = _pair(options["kernel_size"])
            stride = options.get("stride")
            self.stride = self.kernel if stride in (None, []) else _pair(stride)
            self.padding = _pair(options.get("padding", 0))
            self.ceil_mode = bool(options.get("ceil_mode", False))
            self.count_pad = bool(options.get("count_include_pad", True))
            self.divisor = options.get("divisor_override")

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""
        (x,) = inputs
        aten = torch.ops.aten
        if self.size is not None:
            output = functional.adaptive_avg_pool2d(x, self.size)

            def adaptive(multiplier: Tensor) -> tuple[Tensor, ...]:
                like = multiplier.new_empty((len(multiplier), *x.shape[1:]))
                return (aten._adaptive_avg_pool2d_backward(multiplier, like),)

            return output, adaptive
        options = (self.kernel, self.stride, self.padding, self.ceil_mode, self.count_pad)

        def back(multiplier: Tensor) -> tuple[Tensor, ...]:
            like = multiplier.new_empty((len(multiplier), *x.shape[1:]))
            return (aten.avg_pool2d_backward(multiplier, like, *options, self.divisor),)

        return functional.avg_pool2d(x, *options, self.divisor), back


class Sum:
    """Sum of two branches, each in proportion to its part; `epsilon` None means the gradient."""

    def __init__(self, epsilon: float | None, rectified: bool) -> None:
        self.epsilon = epsilon
        self.rectified = rectified

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""
        one, other = inputs
        if one.shape != other.shape:
            raise CapscopeError(
                f"relevance through a sum needs equal shapes, got {tuple(one.shape)} "
                f"and {tuple(other.shape)}"
            )
        output = one + other
        if self.epsilon is None:
            return output, lambda multiplier: (multiplier, multiplier)
        active = output.clamp(min=0) if self.rectified else output
        ratio = divide(active, output, self.epsilon)

        def back(multiplier: Tensor) -> tuple[Tensor, ...]:
            share = scale(multiplier, ratio)
            return share, share

        return output, back


def concatenate(*inputs: Tensor) -> tuple[Tensor, Back]:
    """Join channels; each input gets its own back."""
    channels = [x.shape[1] for x in inputs]
    return torch.cat(inputs, dim=1), lambda multiplier: multiplier.split(channels, dim=1)


def flatten(*inputs: Tensor) -> tuple[Tensor, Back]:
    """Join all axes but the first."""
    (x,) = inputs
    return x.flatten(1), lambda multiplier: (multiplier.reshape(-1, *x.shape[1:]),)


def _pair(value: Any) -> tuple[int, int]:
    """Return a size given once or for both axes as two numbers."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
