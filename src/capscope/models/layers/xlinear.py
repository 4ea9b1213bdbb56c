"""X-Linear attention: bilinear products of query and key, in relevance operations.

Source: Pan et al. 2020, "X-Linear attention networks for image captioning", one head, without the
output projection, as the spatial transformer has it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capscope.models.layers.multi_head import masked_softmax
from capscope.relevance import operations as ops

CHUNK_NUMBERS = 1 << 21
"""Products of query and key that are held at once."""


class PairedLinear(torch.autograd.Function):
    """Linear layer of the products of all queries (B, K, H) and keys (B, N, H): (B, K, N, O).

    The products (B, K, N, H) are never kept: backward forms them again, some queries at a time.
    """

    # ruff: noqa: D102  the methods are those of torch.autograd.Function

    @staticmethod
    def forward(query: Tensor, key: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        parts = [
            F.linear(some.unsqueeze(2) * key.unsqueeze(1), weight, bias)
            for some in torch.split(query, _portion(query, key), 1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        query, key, weight = ctx.saved_tensors
        query, key = query.to(weight.dtype), key.to(weight.dtype)  # of bfloat16 under autocast
        gradient = gradients[0].to(weight.dtype)
        learns = ctx.needs_input_grad[2]
        to_query, to_key, to_weight = [], torch.zeros_like(key), torch.zeros_like(weight)
        portion = _portion(query, key)
        for some, given in zip(
            torch.split(query, portion, 1), torch.split(gradient, portion, 1), strict=True
        ):
            to_product = given @ weight
            to_query.append((to_product * key.unsqueeze(1)).sum(2))
            to_key = to_key + (to_product * some.unsqueeze(2)).sum(1)
            if learns:
                product = some.unsqueeze(2) * key.unsqueeze(1)
                to_weight = to_weight + given.flatten(0, 2).t() @ product.flatten(0, 2)
        to_bias = gradient.sum((0, 1, 2)) if ctx.needs_input_grad[3] else None
        return torch.cat(to_query, 1), to_key, to_weight if learns else None, to_bias


def _portion(query: Tensor, key: Tensor) -> int:
    """Return how many queries of each image make up a portion."""
    return max(1, CHUNK_NUMBERS // max(1, key.numel()))


class StandardisedLinear(nn.Module):
    """Linear layer, CELU, and standardisation over the channels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x (..., H)."""
        return ops.normalise(self.norm, ops.celu(ops.linear(self.linear, x)))


class XLinearAttention(nn.Module):
    """One head that weighs visual features, and gates the channels of what it finds.

    With q1, q2 maps of the query, k and v maps of a feature, every pair has an embedding
    K = relu(W (q1 * k)); a linear score of it, by softmax, weighs the features; its mean over the
    features, by another linear layer and a sigmoid, gates the channels. The result is
    gate * q2 * (weighted sum of v), which is the weighted sum of q2 * v.

    Parameters
    ----------
    hidden : int
        Size H of queries, features and output; the embedding of a pair has H // 2 channels.
    dropout : float
        On the embeddings of pairs, in training.
    """

    def __init__(self, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pair_query = StandardisedLinear(hidden)
        self.key = StandardisedLinear(hidden)
        self.value_query = StandardisedLinear(hidden)
        self.value = StandardisedLinear(hidden)
        self.pair = nn.Linear(hidden, hidden // 2)
        self.score = nn.Linear(hidden // 2, 1)
        self.gate = nn.Linear(hidden // 2, hidden)
        self.dropout = nn.Dropout(dropout)

    def keys(self, x: Tensor) -> Tensor:
        """Return k (B, N, H) of visual features (B, N, H)."""
        with ops.constant("attention"):
            found: Tensor = self.key(x)
        return found

    def values(self, x: Tensor) -> Tensor:
        """Return v (B, N, H) of visual features (B, N, H)."""
        found: Tensor = self.value(x)
        return found

    def forward(
        self, h: Tensor, values: Tensor, keys: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend with h (B, K, H): what is found (B, K, H), weights (B, K, 1, N)."""
        with ops.constant("attention"):
            queries = ops.shared(self.pair_query(h)), ops.shared(keys)
            paired: Tensor = PairedLinear.apply(*queries, self.pair.weight, self.pair.bias)
            paired = self.dropout(ops.relu(ops.stabilise(paired, "linear")))
            scores = ops.linear(self.score, paired).squeeze(-1)
            if valid is None:
                weights = scores.softmax(-1)
            else:
                weights = masked_softmax(scores, valid.unsqueeze(1))
            factor = ops.shared(self.value_query(h))
        with ops.constant("gate"):
            opened = torch.sigmoid(ops.linear(self.gate, _mean(paired, valid)))
        weights = weights.unsqueeze(2)
        found = ops.attend(weights, values)
        return opened * (factor * ops.shared(found)), weights


def _mean(paired: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean (B, K, O) of embeddings (B, K, N, O) over the visual features."""
    if valid is None:
        return paired.mean(2)
    part = valid.to(paired.dtype) / valid.sum(1, keepdim=True).clamp(min=1)
    return (part[:, None, None] @ paired).squeeze(2)
