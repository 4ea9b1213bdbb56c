"""Slow twins of the alpha-beta rules: straight from their equations, one word at a time.

Every rule evaluates its layer again and asks autograd for the shares, over whole tensors; the
explained word is one entry of the whole vocabulary's relevance. This is how published programs do
it, and shares no code with `capscope.relevance.alpha_beta`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from capscope.features.visual import Features

if TYPE_CHECKING:
    from capscope.models.base import BaseTransformer
    from capscope.models.layers.post_norm import AddedAttention, WordLayer


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, kept from dividing by 0; 0 where b is exactly 0."""
    den = b.clamp(min=1e-9) + b.clamp(max=1e-9)
    den = den + den.eq(0).type(den.type()) * 1e-9
    return a / den * b.ne(0).type(b.type())


def linear(x: Tensor, weight: Tensor, r: Tensor, alpha: float = 1.0) -> Tensor:
    """Relevance of x (..., I) from r (..., O): alpha of what excites, 1 - alpha of the rest.

    Source: Montavon et al. 2017, with both combinations of signs under one divisor.
    """
    x_parts = x.clamp(min=0), x.clamp(max=0)
    w_parts = weight.clamp(min=0), weight.clamp(max=0)

    def share(*pairs: tuple[Tensor, Tensor]) -> Tensor:
        with torch.enable_grad():
            leaves = [part.detach().requires_grad_() for part, _ in pairs]
            sums = [functional.linear(leaf, w) for leaf, (_, w) in zip(leaves, pairs, strict=True)]
            shared = divide(r, sum(sums[1:], sums[0]).detach())
            found: Tensor = torch.zeros_like(x)
            for leaf, one in zip(leaves, sums, strict=True):
                found = found + leaf.detach() * torch.autograd.grad(one, leaf, shared)[0]
        return found

    exciting = share((x_parts[0], w_parts[0]), (x_parts[1], w_parts[1]))
    inhibiting = share((x_parts[0], w_parts[1]), (x_parts[1], w_parts[0]))
    return alpha * exciting - (alpha - 1) * inhibiting


def product(
    multiply: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor, r: Tensor
) -> tuple[Tensor, Tensor]:
    """Relevance of both factors of a matrix product, half of which each of them gets."""
    with torch.enable_grad():
        factors = [left.detach().requires_grad_(), right.detach().requires_grad_()]
        z = multiply(*factors)
        gradients = torch.autograd.grad(z, factors, divide(r, z.detach()))
    found = [factor.detach() * g / 2 for factor, g in zip(factors, gradients, strict=True)]
    return found[0], found[1]


def add(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of both terms of a sum, with totals over whole tensors."""
    shared = divide(r, a + b)
    ra, rb = a * shared, b * shared
    sizes = ra.sum().abs(), rb.sum().abs()
    whole = sizes[0] + sizes[1]
    fa, fb = (divide(size, whole) * r.sum() for size in sizes)
    return ra * divide(fa, ra.sum()), rb * divide(fb, rb.sum())


def clone(x: Tensor, *uses: Tensor) -> Tensor:
    """Relevance of a tensor from that of all its uses."""
    return x * sum((divide(r, x) for r in uses[1:]), divide(uses[0], x))


def heads(x: Tensor, count: int) -> Tensor:
    """Return x (B, n, H) as (B, heads, n, H / heads)."""
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


class Block(NamedTuple):
    """Attention with its residual sum: what its rules need."""

    layer: AddedAttention
    query: Tensor
    read: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor
    sums: Tensor
    found: Tensor
    y: Tensor

    @classmethod
    def forward(cls, layer: AddedAttention, query: Tensor, read: Tensor, hidden: Tensor) -> Block:
        """Attend with query (B, n, H) to read (B, N, H)."""
        own = layer.attention
        q, k, v = (
            heads(fed, own.heads) for fed in (own.query(query), own.key(read), own.value(read))
        )
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(hidden.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(hidden.unsqueeze(1), 0)
        sums = (weights @ v).transpose(1, 2).flatten(2)
        found = own.output(sums)
        y = layer.norm(query + found)
        return cls(layer, query, read, q, k, v, weights, sums, found, y)

    def back(self, r: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the relevance of the query, and of what is read, as keys and as values."""
        own = self.layer.attention
        r_own, r_found = add(self.query, self.found, r)
        r_sums = linear(self.sums, own.output.weight, r_found, alpha)
        r_weights, r_v = product(torch.matmul, self.weights, self.v, heads(r_sums, own.heads))
        r_q, r_k = product(lambda q, k: q @ k.transpose(-2, -1), self.q, self.k, r_weights)
        merged = [one.transpose(1, 2).flatten(2) for one in (r_q, r_k, r_v)]
        r_query = linear(self.query, own.query.weight, merged[0], alpha)
        r_keys = linear(self.read, own.key.weight, merged[1], alpha)
        r_values = linear(self.read, own.value.weight, merged[2], alpha)
        return clone(self.query, r_own, r_query), r_keys, r_values


class Layer(NamedTuple):
    """A layer of the decoder: what its rules need."""

    layer: WordLayer
    x: Tensor
    own: Block
    middle: Tensor
    cross: Block
    top: Tensor
    inner: Tensor
    found: Tensor
    y: Tensor

    @classmethod
    def forward(
        cls, layer: WordLayer, x: Tensor, said: Tensor, hidden: Tensor, e: Tensor, masked: Tensor
    ) -> Layer:
        """Read words x (B, T, H)."""
        own = Block.forward(layer.own, x, x, hidden)
        middle = layer.norms[0](x + own.y) * said
        cross = Block.forward(layer.cross, middle, e, masked)
        top = layer.norms[1](middle + cross.y) * said
        inner = layer.feed_forward.inner(top).relu()
        found = layer.feed_forward.outer(inner)
        y = layer.norms[2](top + found) * said
        return cls(layer, x, own, middle, cross, top, inner, found, y)

    def back(self, r: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """Return the relevance of the layer's input, and of the encoder's output."""
        feed = self.layer.feed_forward
        r_own, r_found = add(self.top, self.found, r)
        r_inner = linear(self.inner, feed.outer.weight, r_found, alpha)
        r = clone(self.top, r_own, linear(self.top, feed.inner.weight, r_inner, alpha))
        r_own, r_found = add(self.middle, self.cross.y, r)
        r_query, *r_read = self.cross.back(r_found, alpha)
        to_encoder = clone(self.cross.read, *r_read)
        r_own, r_found = add(self.x, self.own.y, clone(self.middle, r_own, r_query))
        return clone(self.x, r_own, *self.own.back(r_found, alpha)), to_encoder


@torch.no_grad()
def explain_by_loop(
    captioner: BaseTransformer,
    features: Features,
    inputs: Tensor,
    ids: Tensor | None = None,
    alpha: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Explain the word after each input (B, T), in a loop over words, to the encoder's output.

    Sums are normalised over the whole batch, as published. Padding explains nothing.

    Returns
    -------
    encoded : Tensor (B, T, N, H)
    embedded : Tensor (B, T, T, H)
    """
    encoded = captioner.encoded(captioner.project(features), features)
    read = captioner.is_word(inputs)
    steps = inputs.shape[1]
    x = captioner.embedding(inputs) + captioner.positions[torch.arange(1, steps + 1) * read]
    hidden = torch.ones(steps, steps, dtype=torch.bool).triu(1) | ~read.unsqueeze(1)
    masked, said = ~encoded.valid.unsqueeze(1), read.unsqueeze(-1).to(x.dtype)
    layers = []
    for layer in captioner.word_layers:
        layers.append(Layer.forward(layer, x, said, hidden, encoded.values, masked))
        x = layers[-1].y
    logits = captioner.words(x)
    ids = logits.argmax(-1) if ids is None else ids
    results = []
    for t in range(steps):
        seed = torch.zeros_like(logits)
        seed[torch.arange(len(ids)), t, ids[:, t]] = said[:, t, 0]
        r = linear(x, captioner.words.weight, seed, alpha)
        to_encoder = torch.zeros_like(encoded.values)
        for one in reversed(layers):
            r, sent = one.back(r, alpha)
            to_encoder = to_encoder + sent
        results.append((to_encoder, r))
    return torch.stack([one for one, _ in results], 1), torch.stack([one for _, one in results], 1)
