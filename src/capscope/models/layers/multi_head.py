"""Multi-head scaled dot-product attention, in relevance operations."""

from __future__ import annotations

from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.relevance import operations as ops


def attention_weights(
    query: Tensor, keys: Tensor, heads: int, valid: Tensor | None = None
) -> Tensor:
    """Return softmax(Q K^T / sqrt(d)) of each head, constant where the rules have it so.

    Parameters
    ----------
    query, keys : Tensor (B, K, H), (B, N, H)
        Head j takes the j-th block of d = H / `heads` columns.
    valid : Tensor (B, N) or (B, K, N) bool, or None
        What may be attended to.

    Returns
    -------
    Tensor (B, K, heads, N)

    Source: Vaswani et al. 2017, eq. 1.
    """
    with ops.constant("attention"):
        queries = ops.split_heads(query, heads).transpose(1, 2)
        columns = ops.split_heads(keys, heads).permute(0, 2, 3, 1)
        scores = (queries @ columns).transpose(1, 2) / queries.shape[-1] ** 0.5
        if valid is not None:
            allowed = valid.unsqueeze(-2) if valid.dim() == 3 else valid[:, None, None]
            scores = scores.masked_fill(~allowed, float("-inf"))
        weights: Tensor = scores.softmax(-1)
    return weights


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
            return ops.affine(x, self.key.weight, self.key.bias)

    def values(self, x: Tensor) -> Tensor:
        """Return the values (B, N, H) of visual features (B, N, H)."""
        return ops.linear(self.value, x)

    def forward(
        self, h: Tensor, values: Tensor, keys: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend with h (B, K, H): the heads' sums (B, K, H), their weights (B, K, heads, N)."""
        with ops.constant("attention"):
            query = ops.affine(h, self.query.weight, self.query.bias)
        weights = attention_weights(query, keys, self.heads, valid)
        dropped: Tensor = self.dropout(weights)
        return ops.attend(dropped, values), weights
