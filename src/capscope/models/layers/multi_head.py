"""Multi-head scaled dot-product attention, in relevance operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.relevance import operations as ops


def attention_weights(
    query: Tensor,
    keys: Tensor,
    heads: int,
    valid: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Return softmax(Q K^T / sqrt(d) + bias) of each head, constant where the rules have it so.

    Parameters
    ----------
    query, keys : Tensor (B, K, H), (B, N, H)
        Head j takes the j-th block of d = H / `heads` columns.
    valid : Tensor (B, N) or (B, K, N) bool, or None
        What may be attended to; where that is nothing, all weights are 0.
    bias : Tensor (B, K, heads, N) or None
        Added to the scores.

    Returns
    -------
    Tensor (B, K, heads, N)

    Source: Vaswani et al. 2017, eq. 1.
    """
    with ops.constant("attention"):
        queries = ops.split_heads(ops.shared(query), heads).transpose(1, 2)
        # Rows of heads lie together: a copy of columns, which the product would make, is slower.
        blocks = ops.split_heads(ops.shared(keys), heads).transpose(1, 2).contiguous()
        scores = (queries @ blocks.mT).transpose(1, 2) / queries.shape[-1] ** 0.5
        if bias is not None:
            scores = scores + bias
        if valid is None:
            return torch.softmax(scores, -1)
        allowed = valid.unsqueeze(-2) if valid.dim() == 3 else valid[:, None, None]
        return masked_softmax(scores, allowed)


def masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Return the softmax over the last axis among what is `allowed`; 0 where nothing is."""
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~allowed, 0.0)


class MultiHeadAttention(nn.Module):
    """Attention of several heads side by side, without a projection of their outputs.

    Keys and values are projected once for each image and kept in the memory.

    Parameters
    ----------
    hidden : int
        Size H of queries, keys, values and output.
    heads : int
        Divides H.
    dropout : float
        On the weights, in training.
    """

    def __init__(self, hidden: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if hidden % heads:
            raise CapscopeError(
                f"heads = {heads} does not divide hidden = {hidden}: each head takes as many "
                "columns; change one of the two"
            )
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def keys(self, x: Tensor) -> Tensor:
        """Return the keys (B, N, H) of visual features (B, N, H)."""
        with ops.constant("attention"):
            return ops.linear(self.key, x)

    def values(self, x: Tensor) -> Tensor:
        """Return the values (B, N, H) of visual features (B, N, H)."""
        return ops.linear(self.value, x)

    def forward(
        self,
        h: Tensor,
        values: Tensor,
        keys: Tensor,
        valid: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend with h (B, K, H): the heads' sums (B, K, H), their weights (B, K, heads, N)."""
        with ops.constant("attention"):
            query = ops.linear(self.query, h)
        weights = attention_weights(query, keys, self.heads, valid, bias)
        dropped: Tensor = self.dropout(weights)
        return ops.attend(dropped, values), weights
