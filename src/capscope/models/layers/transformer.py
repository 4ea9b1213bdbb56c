"""Parts of transformers in relevance operations: attention, feed-forward, layers, positions.

Layers normalise their input first ("pre-norm") and add what they find to it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.models.layers.cache import Decoded, Past
from capscope.models.layers.multi_head import MultiHeadAttention
from capscope.models.layers.xlinear import XLinearAttention
from capscope.relevance import operations as ops

Norm = Literal["layer", "rms"]
Activation = Literal["relu", "gelu"]
Cross = Literal["dot_product", "xlinear"]
LONGEST = 5000
"""Positions of words that are told apart."""


class Sizes(NamedTuple):
    """What the layers of a transformer have in common."""

    hidden: int
    heads: int
    feed_forward: int
    dropout: float
    norm: Norm = "layer"
    activation: Activation = "relu"


def checked(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise a `CapscopeError` that lists what is allowed if `value` is not."""
    if value not in allowed:
        raise CapscopeError(f"{name} is {value!r}; allowed: {', '.join(map(str, allowed))}")


class ProjectedAttention(MultiHeadAttention):
    """Multi-head attention whose outputs are projected (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(hidden, heads, dropout)
        self.output = nn.Linear(hidden, hidden)

    def forward(
        self,
        h: Tensor,
        values: Tensor,
        keys: Tensor,
        valid: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend with h (B, K, H): what is found (B, K, H), weights (B, K, heads, N)."""
        found, weights = super().forward(h, values, keys, valid, bias)
        return ops.linear(self.output, found), weights


class RMSNorm(nn.Module):
    """scale * x / (root mean square of x + epsilon) (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def reset_parameters(self) -> None:
        """Set the scale to 1."""
        nn.init.ones_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of x."""
        return ops.root_mean_square(self.scale, x, self.epsilon)


def build_norm(name: Norm, size: int) -> nn.Module:
    """Build a normalisation over `size` channels."""
    checked("norm", name, ("layer", "rms"))
    return nn.LayerNorm(size) if name == "layer" else RMSNorm(size)


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise x (..., H) by what `build_norm` gives."""
    if isinstance(norm, nn.LayerNorm):
        return ops.normalise(norm, x)
    found: Tensor = norm(x)
    return found


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        checked("activation", sizes.activation, ("relu", "gelu"))
        self.activation = sizes.activation
        self.inner = nn.Linear(sizes.hidden, sizes.feed_forward)
        self.outer = nn.Linear(sizes.feed_forward, sizes.hidden)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to x (..., H)."""
        if self.activation == "relu":
            inner = ops.rectified_linear(self.inner, x)
        else:
            inner = ops.gelu(ops.linear(self.inner, x))
        return ops.linear(self.outer, self.dropout(inner))


class EncoderLayer(nn.Module):
    """Self-attention of visual features, then a feed-forward network."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = ProjectedAttention(sizes.hidden, sizes.heads, sizes.dropout)
        self.feed_forward = FeedForward(sizes)
        self.norms = nn.ModuleList(build_norm(sizes.norm, sizes.hidden) for _ in range(2))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(
        self, x: Tensor, valid: Tensor | None, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the next layer's input (B, N, H), and weights (B, N, heads, N)."""
        seen = normalised(self.norms[0], x)
        values, keys = self.attention.values(seen), self.attention.keys(seen)
        found, weights = self.attention(seen, values, keys, valid, bias)
        x = ops.add(x, self.dropout(found))
        found = self.feed_forward(normalised(self.norms[1], x))
        return ops.add(x, self.dropout(found)), weights


class DecoderLayer(nn.Module):
    """Self-attention of words, attention to visual features, then a feed-forward network."""

    def __init__(self, sizes: Sizes, cross: Cross = "dot_product") -> None:
        super().__init__()
        checked("cross", cross, ("dot_product", "xlinear"))
        self.attention = ProjectedAttention(sizes.hidden, sizes.heads, sizes.dropout)
        self.cross: ProjectedAttention | XLinearAttention
        if cross == "xlinear":
            self.cross = XLinearAttention(sizes.hidden, sizes.dropout)
        else:
            self.cross = ProjectedAttention(sizes.hidden, sizes.heads, sizes.dropout)
        self.feed_forward = FeedForward(sizes)
        self.norms = nn.ModuleList(build_norm(sizes.norm, sizes.hidden) for _ in range(3))
        self.dropout = nn.Dropout(sizes.dropout)

    def remember(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, N, H) of encoded visual features (B, N, H)."""
        return self.cross.keys(values), self.cross.values(values)

    def forward(
        self,
        x: Tensor,
        seen: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor | None,
        past: Past | None = None,
    ) -> Decoded:
        """Read Q words x (B K, Q, H).

        Parameters
        ----------
        seen : Tensor (B K, Q, S) or (1, Q, S) bool
            Which words each word attends to: those of the past, then x.
        keys, values : Tensor (B, N, H)
            Of the visual features, projected once for each image: the K captions of an image
            are so many more queries.
        valid : Tensor (B, N) bool or None
        past : Past or None
        """
        rows, steps, size = x.shape
        own = normalised(self.norms[0], x)
        now = Past(self.attention.keys(own), self.attention.values(own)).after(past)
        found, own_weights = self.attention(own, now.values, now.keys, seen)
        x = ops.add(x, self.dropout(found))
        query = normalised(self.norms[1], x).reshape(len(keys), -1, size)
        found, weights = self.cross(query, values, keys, valid)
        x = ops.add(x, self.dropout(found.reshape(rows, steps, size)))
        found = self.feed_forward(normalised(self.norms[2], x))
        return Decoded(ops.add(x, self.dropout(found)), now, own_weights, weights)


def sinusoids(length: int, size: int) -> Tensor:
    """Return the table (length, size) of positions (Vaswani et al. 2017, section 3.5).

    Even columns are sines of p / 10000^(column / size), odd ones the cosines of their neighbour.
    """
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :size]


def earlier(steps: int, device: torch.device) -> Tensor:
    """Return which words each of T words may attend to, (1, T, T): itself and those before."""
    return torch.ones(1, steps, steps, dtype=torch.bool, device=device).tril()
