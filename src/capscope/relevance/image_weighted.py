"""Convolution and linear layers under any rule made of branches, and what all layers share.

Between layers travels a *multiplier* M, not the relevance R: R = x M for a layer's output x. What
does not depend on the explained word (denominators, arg-maxima, masks) is computed once, in
forward; the way back through a layer is then one scaling and one transposed convolution. For
gradients, M is the gradient. The k maps of each image are stacked on the batch axis, (b k, C, ...).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from capscope.errors import CapscopeError
from capscope.relevance.image_graph import Layer
from capscope.relevance.image_rules import Branch, InputPart, LayerRule, Term

Back = Callable[[Tensor], tuple[Tensor, ...]]


def scale(multiplier: Tensor, factor: Tensor) -> Tensor:
    """Multiply the k maps of each image, (b k, ...), by that image's factor, (b, ...)."""
    maps = multiplier.view(len(factor), -1, *multiplier.shape[1:])
    return (maps * factor.unsqueeze(1)).flatten(0, 1)


def divide(numerator: Tensor, denominator: Tensor, epsilon: float = 0.0) -> Tensor:
    """Divide by denominator + epsilon * sign(denominator); 0 where the denominator is exactly 0."""
    stable = denominator + epsilon * denominator.sign() if epsilon else denominator
    return torch.where(denominator == 0, 0.0, numerator / stable)


class Weighted:
    """Convolution or linear layer under any rule made of branches.

    Parameters
    ----------
    layer : Layer
        Its weights and sizes.
    rule : LayerRule
        The rule.
    pixels : bool
        Whether it reads the image and relevance is wanted: the way back then returns relevance,
        since a rule need not be in proportion to x there (box, flat).
    nonnegative : bool
        Whether its input is never negative: rules then need one product instead of two.
    rectified : bool
        Whether a rectifier alone reads its output.
    """

    def __init__(
        self, layer: Layer, rule: LayerRule, pixels: bool, nonnegative: bool, rectified: bool
    ) -> None:
        branches = rule.branches()
        bounded = {t.input for b in branches for t in b.terms} & {"low", "high", "ones"}
        if bounded and not pixels:
            raise CapscopeError(
                f"{type(rule).__name__} is a rule for the layer that reads the image, not for "
                f"{layer.name}: give it as ImageRules.first"
            )
        self.options = dict(layer.options)
        self.weight = _layout(self.options.pop("weight"))
        self.bias: Tensor | None = self.options.pop("bias")
        self.pixels = pixels
        self.rectified = rectified
        self.box = (getattr(rule, "low", ()), getattr(rule, "high", ()))
        self.branches = [_of_nonnegative(b) if nonnegative else b for b in branches]
        self.weights = [[_layout(t.weight(self.weight)) for t in b.terms] for b in self.branches]
        self.stacks = [_layout(torch.cat(weights, dim=1)) for weights in self.weights]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Back]:
        """Return the output and the way back."""
        (x,) = inputs
        output = self._apply(x, self.weight, self.bias)
        ratios = [self._ratio(x, output, index) for index in range(len(self.branches))]
        channels, size = x.shape[1], x.shape[2:]
        factors: dict[InputPart, Tensor] = {}
        for part in {term.input for branch in self.branches for term in branch.terms}:
            if self.pixels:
                factors[part] = self._part(x, part)
            elif part != "all":
                factors[part] = (x > 0 if part == "positive" else x < 0).to(x.dtype)

        def back(multiplier: Tensor) -> tuple[Tensor, ...]:
            total: Tensor | None = None
            for branch, stack, ratio in zip(self.branches, self.stacks, ratios, strict=True):
                scaled = multiplier if ratio is None else scale(multiplier, ratio)
                sent = self._transpose(scaled, stack, size)
                for term, part in zip(branch.terms, self._split(sent, channels), strict=True):
                    share = scale(part, factors[term.input]) if term.input in factors else part
                    total = share if total is None else total + share
            assert total is not None
            return (total,)

        return output, back

    def _ratio(self, x: Tensor, output: Tensor, index: int) -> Tensor | None:
        """Return coefficient * output / denominator of a branch, the output rectified if it is."""
        branch = self.branches[index]
        if not branch.normalised:
            return None
        denominator = torch.zeros_like(output)
        for term, weight in zip(branch.terms, self.weights[index], strict=True):
            denominator += self._apply(self._part(x, term.input), weight, None)
        if branch.bias is not None and self.bias is not None:
            bias = branch.bias(self.bias)
            denominator += bias.reshape(-1, *[1] * (output.dim() - 2))
        active = output.clamp(min=0) if self.rectified else output
        return branch.coefficient * divide(active, denominator, branch.epsilon)

    def _part(self, x: Tensor, part: InputPart) -> Tensor:
        """Return the part of the input that a term reads."""
        if part in ("low", "high"):
            bound = x.new_tensor(self.box[part == "high"]).reshape(-1, 1, 1)
            return (-bound).expand_as(x)
        match part:
            case "positive":
                return x.clamp(min=0)
            case "negative":
                return x.clamp(max=0)
            case "ones":
                return torch.ones_like(x)
        return x

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.dim() == 2:
            return functional.linear(x, weight, bias)
        return functional.conv2d(x, weight, bias, **self.options)

    def _transpose(self, scaled: Tensor, weight: Tensor, size: torch.Size) -> Tensor:
        """Send `scaled` back through the layer's weights, to inputs of the given size."""
        if weight.dim() == 2:
            return scaled @ weight
        stride, padding, dilation = (self.options[k] for k in ("stride", "padding", "dilation"))
        missing = [
            size[i]
            - (scaled.shape[2 + i] - 1) * stride[i]
            + 2 * padding[i]
            - dilation[i] * (weight.shape[2 + i] - 1)
            - 1
            for i in range(2)
        ]
        return functional.conv_transpose2d(
            scaled, weight, None, stride, padding, missing, self.options["groups"], dilation
        )

    def _split(self, sent: Tensor, channels: int) -> list[Tensor]:
        """Take apart what the stacked weights of a branch's terms sent back."""
        if sent.shape[1] == channels:
            return [sent]
        groups = self.options.get("groups", 1)
        grouped = sent.reshape(len(sent), groups, -1, channels // groups, *sent.shape[2:])
        return [part.flatten(1, 2) for part in grouped.unbind(2)]


def _layout(weight: Tensor) -> Tensor:
    """Put convolution weights into the memory order in which CPU kernels are fastest."""
    return weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight


def _of_nonnegative(branch: Branch) -> Branch:
    """Leave out terms of negative inputs, where there are none."""
    terms = [term for term in branch.terms if term.input != "negative"]
    kept = tuple(Term("all", t.weight) if t.input == "positive" else t for t in terms)
    return Branch(kept, branch.coefficient, branch.bias, branch.epsilon, branch.normalised)
