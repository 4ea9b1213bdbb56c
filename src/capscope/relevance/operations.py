"""The operations that captioners are written in.

Outside relevance mode each is the plain torch operation, bit for bit. Inside `relevance_mode` the
forward values stay the same bits, and backward carries relevance multipliers instead of
derivatives: whatever `Rules` declares constant is cut off, weighted sums and activations scale
the passing multiplier by a ratio that the forward pass stored, and all else is plain autograd,
because everything between two such scalings is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capscope.relevance.rules import Rules

Sum = Literal["linear", "addition", "mean", "context", "normalisation"]
Function = Callable[[Tensor], Tensor]


@dataclass
class Context:
    """One attention-weighted sum that waits for its multiplier."""

    weights: Tensor
    values: Tensor
    result: Tensor


@dataclass
class Pass:
    """What a forward pass in relevance mode leaves for backward.

    Attributes
    ----------
    words : list of Tensor
        Embedded words, leaves of the graph.
    borders : list of (Tensor, Tensor)
        Memory tensors as computed from the features, and the leaves that stand for them.
    contexts : list of Context
        Attention-weighted sums over the memory, leaves as well.
    """

    rules: Rules
    words: list[Tensor] = field(default_factory=list)
    borders: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)


_current: ContextVar[Pass | None] = ContextVar("relevance pass", default=None)


@contextmanager
def relevance_mode(rules: Rules) -> Iterator[Pass]:
    """Let operations carry relevance by `rules`; yields the record that backward needs."""
    record = Pass(rules)
    token = _current.set(record)
    try:
        with torch.enable_grad():
            yield record
    finally:
        _current.reset(token)


def constant(kind: Literal["gate", "sentinel", "attention"]) -> AbstractContextManager[Any]:
    """Return the context in which factors of this kind are computed: no graph if constant."""
    record = _current.get()
    if record is not None and getattr(record.rules, kind) == "constant":
        return torch.no_grad()
    return nullcontext()


def cut(x: Tensor, name: str) -> Tensor:
    """Return `x`, which carries nothing back where the rules cut the connection `name`."""
    record = _current.get()
    return x.detach() if record is not None and name in record.rules.cuts else x


def denominator(z: Tensor, epsilon: float) -> Tensor:
    """Return z + epsilon sign(z), and epsilon where z is 0."""
    return torch.where(z < 0, z - epsilon, z + epsilon)


def weighting_ratio(z: Tensor, kind: Sum, rules: Rules) -> Tensor | None:
    """Return z / den(z), by which the multiplier of a weighted sum is scaled; None if by 1."""
    if getattr(rules, kind) == "derivative":
        return None
    if rules.epsilon == 0:  # the limit; a sum of exactly 0 has no relevance to pass on
        return (z != 0).to(z.dtype)
    return z / denominator(z, rules.epsilon)


def stabilise(z: Tensor, kind: Sum) -> Tensor:
    """Finish a weighted sum: `z` itself, with its rule attached."""
    record = _current.get()
    if record is not None and z.requires_grad:
        ratio = weighting_ratio(z.detach(), kind, record.rules)
        if ratio is not None:
            z.register_hook(ratio.mul)  # type: ignore[no-untyped-call]
    return z


class _Carried(torch.autograd.Function):
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


class _Activation(torch.autograd.Function):
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


class _Standardised(torch.autograd.Function):
    """Layer normalisation whose backward takes the deviation as a constant."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, epsilon = inputs
        deviation = (x.var(-1, correction=0, keepdim=True) + epsilon).sqrt()
        ctx.ratio = weight / deviation

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        scaled = gradients[0] * ctx.ratio
        return scaled - scaled.mean(-1, keepdim=True), None, None, None


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None, gates: int = 0) -> Tensor:
    """Return x W^T + b, a summand of a pre-activation (not stabilised yet).

    Parameters
    ----------
    x : Tensor (..., I)
    weight : Tensor (O, I)
    bias : Tensor (O,) or None
    gates : int
        With gates, the rows of `weight` are `gates` equal blocks (i, f, g, o, ...) of which all
        but the third, the candidate, are gates: if these are constant, only it is carried back.
    """
    record = _current.get()
    if record is None:
        return F.linear(x, weight, bias)
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if gates and record.rules.gate == "constant":
        size = weight.shape[0] // gates
        carried: Tensor = _Carried.apply(x, weight, bias, slice(2 * size, 3 * size))
        return carried
    return F.linear(x, weight, bias)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer."""
    return stabilise(affine(x, layer.weight, layer.bias), "linear")


def selected_linear(layer: nn.Linear, x: Tensor, ids: Tensor) -> Tensor:
    """Return output `ids[...]` of a linear layer for each row of x: (..., I) -> (...)."""
    weight, bias = layer.weight[ids], layer.bias[ids]
    if _current.get() is not None:
        weight, bias = weight.detach(), bias.detach()
    return stabilise((x * weight).sum(-1) + bias, "linear")


def add(*terms: Tensor) -> Tensor:
    """Add tensors of one shape."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return stabilise(total, "addition")


def mean(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean over visual features (B, N, D) -> (B, D), of the valid ones if given."""
    if valid is None:
        return stabilise(x.mean(1), "mean")
    weights = valid.to(x.dtype).unsqueeze(-1)
    return stabilise((x * weights).sum(1) / weights.sum(1).clamp(min=1), "mean")


def normalise(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply layer normalisation over the last axis."""
    record = _current.get()
    if record is None or record.rules.normalisation == "derivative":
        normalised: Tensor = layer(x)
        return normalised
    y = _Standardised.apply(x, layer.weight.detach(), layer.bias.detach(), layer.eps)
    return stabilise(y, "normalisation")


def tanh(z: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _activation(z, torch.tanh, "activation", slope=1.0)


def relu(z: Tensor) -> Tensor:
    """Rectifier."""
    return _activation(z, torch.relu, "rectifier", slope=0.0)


def _activation(
    z: Tensor, function: Function, kind: Literal["activation", "rectifier"], slope: float
) -> Tensor:
    """Apply an activation with a(0) = 0; `slope` is the secant's limit at 0."""
    record = _current.get()
    choice = "derivative" if record is None else getattr(record.rules, kind)
    if choice == "derivative":
        return function(z)
    activated: Tensor = _Activation.apply(z, function, slope if choice == "secant" else None)
    return activated


def attend(weights: Tensor, values: Tensor) -> Tensor:
    """Return attention-weighted sums of values: (B, K, N), (B, N, H) -> (B, K, H).

    With constant weights over the memory, in relevance mode, the result is a leaf of the graph:
    backward collects the multipliers of all steps and spreads them over the values in one product.
    """
    record = _current.get()
    if record is None or record.rules.attention == "derivative":
        return stabilise(weights @ values, "context")
    if not any(values is leaf for _, leaf in record.borders):
        return stabilise(weights.detach() @ values, "context")
    result = (weights @ values.detach()).requires_grad_()
    record.contexts.append(Context(weights, values, result))
    return result


def embedding(table: nn.Embedding, word_ids: Tensor) -> Tensor:
    """Look up words (..., ) -> (..., E)."""
    embedded: Tensor = table(word_ids)
    record = _current.get()
    if record is not None:
        embedded = embedded.detach().requires_grad_()
        record.words.append(embedded)
    return embedded


def border(memory: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the memory; in relevance mode leaves in its place, where backward changes stage."""
    record = _current.get()
    if record is None:
        return memory
    leaves = {}
    for name, tensor in memory.items():
        leaves[name] = tensor.detach()
        if tensor.requires_grad:
            leaves[name].requires_grad_()
            record.borders.append((tensor, leaves[name]))
    return leaves
