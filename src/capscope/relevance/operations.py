"""The operations that captioners are written in.

Outside relevance mode each is the plain torch operation, bit for bit (within `products_by`, for
searches and training, to rounding). Inside `relevance_mode` the forward values stay the same bits,
and backward carries relevance multipliers instead of derivatives: whatever `Rules` declares
constant is cut off, weighted sums and activations scale the passing multiplier by a ratio that the
forward pass stored, and all else is plain autograd, because everything between two such scalings is
linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.relevance.functions import (
    Activation,
    Carried,
    Function,
    Guided,
    Passing,
    RectifiedSum,
    Standardised,
)
from capscope.relevance.record import Context, Copies, Kept, Pass
from capscope.relevance.rules import Rules

Sum = Literal["linear", "addition", "mean", "context", "normalisation"]


Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_current: ContextVar[Pass | None] = ContextVar("relevance pass", default=None)
_product: ContextVar[Product] = ContextVar("product", default=F.linear)


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


@contextmanager
def products_by(product: Product) -> Iterator[None]:
    """Let plain operations take x W^T + b by another function, which may round otherwise."""
    token = _product.set(product)
    try:
        yield
    finally:
        _product.reset(token)


def in_relevance_mode() -> bool:
    """Say whether operations carry relevance."""
    return _current.get() is not None


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


def weighting_ratio(
    z: Tensor, kind: Sum, rules: Rules, divisor: Tensor | None = None
) -> Tensor | None:
    """Return z / den(z), by which the multiplier of a weighted sum is scaled; None if by 1.

    With `divisor`, z / den(divisor) (published errors).
    """
    if getattr(rules, kind) == "derivative":
        return None
    if divisor is not None:
        return z / denominator(divisor, rules.epsilon)
    if rules.epsilon == 0:  # the limit; a sum of exactly 0 has no relevance to pass on
        return (z != 0).to(z.dtype)
    size = z.abs()  # z / (z + epsilon sign z) is |z| / (|z| + epsilon)
    return size / (size + rules.epsilon)


def stabilise(z: Tensor, kind: Sum, divisor: Tensor | None = None) -> Tensor:
    """Finish a weighted sum: `z` itself, with its rule attached."""
    record = _current.get()
    if record is not None and z.requires_grad:
        ratio = weighting_ratio(z.detach(), kind, record.rules, divisor)
        if ratio is not None:
            z.register_hook(ratio.mul)  # type: ignore[no-untyped-call]
    return z


def plain() -> bool:
    """Return whether operations are the plain ones: no relevance pass is recording."""
    return _current.get() is None


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
        return _product.get()(x, weight, bias)
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if gates and record.rules.gate == "constant":
        size = weight.shape[0] // gates
        carried: Tensor = Carried.apply(x, weight, bias, slice(2 * size, 3 * size))
        return carried
    if x is record.cells and record.shift is not None:
        return F.linear(x.detach(), weight, bias) + F.linear(record.shift, weight)
    if x is record.cells and record.amount is not None:
        z = F.linear(x.detach(), weight, bias)
        return z + record.amount * (z if bias is None else z - bias)
    if record.borders and x.requires_grad:
        passing: Tensor = Passing.apply(x, weight, bias)
        return passing
    return F.linear(x, weight, bias)


def linear(layer: nn.Linear, x: Tensor, name: str | None = None) -> Tensor:
    """Apply a linear layer; one that the rules name in `divisors` is divided by W x alone."""
    z = affine(x, layer.weight, layer.bias)
    return stabilise(z, "linear", z.detach() - layer.bias.detach() if divided(name) else None)


def divided(name: str | None) -> bool:
    """Return whether the rules share out the sum `name` by another divisor than the sum."""
    record = _current.get()
    return record is not None and name in record.rules.divisors


def gated_linear(layer: nn.Linear, x: Tensor, gate: nn.Linear, by: Tensor) -> Tensor:
    """Return sigma(gate(by)) * layer(x): a gated linear unit (Dauphin et al. 2017)."""
    with constant("gate"):
        opened = torch.sigmoid(affine(by, gate.weight, gate.bias))
    return opened * linear(layer, x)


def selected_linear(layer: nn.Linear, x: Tensor, ids: Tensor) -> Tensor:
    """Return output `ids[...]` of a linear layer for each row of x: (..., I) -> (...)."""
    weight = layer.weight[ids]
    bias: Tensor | None = layer.bias  # None where the layer has none
    if _current.get() is not None:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    z = (x * weight).sum(-1)
    return stabilise(z if bias is None else z + bias[ids], "linear")


def add(*terms: Tensor) -> Tensor:
    """Add tensors of one shape."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return stabilise(total, "addition")


def mean(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean over visual features (B, N, D) -> (B, D), of the valid ones if given."""
    if valid is None:
        # Not `mean`: its backward writes N copies where that of `sum` gives a view.
        return stabilise(x.sum(1) / x.shape[1], "mean")
    weights = valid.to(x.dtype).unsqueeze(-1)
    return stabilise((x * weights).sum(1) / weights.sum(1).clamp(min=1), "mean")


def normalise(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply layer normalisation over the last axis."""
    record = _current.get()
    if record is None or record.rules.normalisation == "derivative":
        normalised: Tensor = layer(x)
        return normalised
    share = partial(weighting_ratio, kind="normalisation", rules=record.rules)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    standardised: Tensor = Standardised.apply(x, weight, bias, layer.eps, share)
    return standardised


def root_mean_square(scale: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return scale * x / (root mean square of the last axis + epsilon)."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5 + epsilon
    record = _current.get()
    if record is not None and record.rules.normalisation != "derivative":
        scale, size = scale.detach(), size.detach()
    return stabilise(scale * x / size, "normalisation")


def shared(x: Tensor) -> Tensor:
    """Return a factor of a product of two; it gets half the relevance where factors share it."""
    record = _current.get()
    if record is None or record.rules.attention != "shared":
        return x
    return (x + x.detach()) / 2


def tanh(z: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _activation(z, torch.tanh, "activation", slope=1.0)


def gelu(z: Tensor) -> Tensor:
    """Gaussian error linear unit (Hendrycks and Gimpel 2016), exact."""
    return _activation(z, F.gelu, "activation", slope=0.5)


def celu(z: Tensor) -> Tensor:
    """Continuously differentiable exponential linear unit, alpha = 1 (Barron 2017)."""
    return _activation(z, F.celu, "activation", slope=1.0)


def candidate(z: Tensor, name: str | None = None) -> Tensor:
    """Return tanh of a weighted sum; one that the rules name in `divisors` is divided by tanh."""
    if not divided(name):
        return tanh(stabilise(z, "linear"))
    activated: Tensor = Activation.apply(z, torch.tanh, None)
    return stabilise(activated, "linear")


def relu(z: Tensor) -> Tensor:
    """Rectifier."""
    record = _current.get()
    if record is not None and record.rules.rectifier == "guided":
        guided: Tensor = Guided.apply(z)
        return guided
    return _activation(z, torch.relu, "rectifier", slope=0.0)


def rectified_linear(layer: nn.Linear, x: Tensor, name: str | None = None) -> Tensor:
    """Apply a linear layer and a rectifier; `name` as in `linear`."""
    record = _current.get()
    rules = None if record is None else record.rules
    if rules is None or (rules.linear, rules.rectifier) != ("epsilon", "secant") or divided(name):
        return relu(linear(layer, x, name))
    rectified: Tensor = RectifiedSum.apply(affine(x, layer.weight, layer.bias), rules.epsilon)
    return rectified


def _activation(
    z: Tensor, function: Function, kind: Literal["activation", "rectifier"], slope: float
) -> Tensor:
    """Apply an activation with a(0) = 0; `slope` is the secant's limit at 0."""
    record = _current.get()
    choice = "derivative" if record is None else getattr(record.rules, kind)
    if choice == "derivative":
        return function(z)
    activated: Tensor = Activation.apply(z, function, slope if choice == "secant" else None)
    return activated


def attend(weights: Tensor, values: Tensor) -> Tensor:
    """Return attention-weighted sums of values (B, N, H) for K queries: (B, K, H).

    Weights are (B, K, N), or (B, K, heads, N): each head then sums its own block of columns.

    Over the memory, in relevance mode, the result is a leaf of the graph (or has one added to it,
    if the weights get relevance too): backward collects the multipliers of all steps and spreads
    them over the values in one product.
    """
    record = _current.get()
    if record is None:
        return weighted_sums(weights, values)
    remembered = any(values is leaf for _, leaf in record.borders)
    if record.rules.attention == "constant":
        weights = weights.detach()
        if remembered:
            result = weighted_sums(weights, values.detach()).requires_grad_()
            record.contexts.append(Context(weights, values, result))
            return result
    meeting = None
    if remembered and record.rules.context == "derivative":
        meeting = torch.zeros_like(values[:, :1]).expand(-1, weights.shape[1], -1).requires_grad_()
        record.contexts.append(Context(weights.detach(), values, meeting))
        values = values.detach()
    result = stabilise(weighted_sums(shared(weights), shared(values)), "context")
    if weights.dim() == 4 and record.rules.head is not None:
        result = torch.where(
            columns_of(result, weights, record.rules.head), result, result.detach()
        )
    return result if meeting is None else result + meeting


def weighted_sums(weights: Tensor, values: Tensor) -> Tensor:
    """Return sums of values (B, N, H) by weights (B, K, N) or (B, K, heads, N): (B, K, H)."""
    if weights.dim() == 3:
        return weights @ values
    heads = split_heads(values, weights.shape[2]).transpose(1, 2)
    return (weights.transpose(1, 2) @ heads).transpose(1, 2).flatten(2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return x (..., H) as the heads' blocks of columns (..., heads, H / heads)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def columns_of(context: Tensor, weights: Tensor, head: int) -> Tensor:
    """Return which columns of a context (..., H) belong to a head of weights (B, K, heads, N)."""
    heads = weights.shape[2]
    if not 0 <= head < heads:
        raise CapscopeError(f"head {head} does not exist: this captioner has {heads} heads")
    size = context.shape[-1] // heads
    return torch.arange(context.shape[-1], device=context.device) // size == head


def each_step(x: Tensor, steps: int, name: str, kept: Kept) -> Tensor:
    """Return a memory tensor (B, 1, X) as it is fed at each of T steps: (B, T, X).

    Where the rules cut `name`, the multiplier of one step alone counts: that of the step which
    says the explained word (`own`), or that of the first.
    """
    record = _current.get()
    if record is None or name not in record.rules.cuts or not x.requires_grad:
        return x.expand(-1, steps, -1)
    leaves = x.detach().repeat(1, steps, 1).requires_grad_()
    record.copies.append(Copies(x, leaves, kept))
    return leaves


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
