"""Adaptive attention: over visual features and a visual sentinel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.relevance import operations as ops


class Attended(NamedTuple):
    """What adaptive attention yields at a step."""

    mixed: Tensor
    """(B, K, H) beta s + (1 - beta) context."""
    context: Tensor
    """(B, K, H) attention-weighted sum of the visual features."""
    alpha: Tensor
    """(B, K, N) weights over visual features alone."""
    beta: Tensor
    """(B, K, 1) weight of the sentinel against all visual features."""


class AdaptiveAttention(nn.Module):
    """Adaptive attention with visual sentinel (Lu et al. 2017, eq. 6-13).

    z_k = w . tanh(W_v V_k + b_v + W_g h), z_s = w . tanh(W_s s + b_s + W_g h),
    alpha = softmax(z), beta = last of softmax([z, z_s]).

    Parameters
    ----------
    hidden : int
        Size of the visual features, sentinel and hidden state.
    width : int
        Size in which they are compared.
    parity : bool
        As published: the scalar (W_g h)_k is added to all entries of region k, which needs as many
        visual features as `width`. The sentinel's score is the same in both.
    """

    def __init__(self, hidden: int, width: int, parity: bool = False) -> None:
        super().__init__()
        self.width = width
        self.parity = parity
        self.visual = nn.Linear(hidden, width)
        self.sentinel = nn.Linear(hidden, width)
        self.query = nn.Linear(hidden, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """Return the projected visual features: (B, N, H) -> (B, N, P)."""
        if self.parity and values.shape[1] != self.width:
            raise CapscopeError(
                f"{values.shape[1]} visual features, but parity needs as many as the attention "
                f"width ({self.width}): set parity to false, or use features of that grid"
            )
        with ops.constant("attention"):
            projected: Tensor = self.visual(values)
        return projected

    def forward(
        self, h: Tensor, sentinel: Tensor, values: Tensor, keys: Tensor, valid: Tensor | None
    ) -> Attended:
        """Attend with h and sentinel (B, K, H) over values (B, N, H), where `valid` (B, N)."""
        with ops.constant("attention"):
            query = self.query(h)
            shift = query.unsqueeze(-1) if self.parity else query.unsqueeze(-2)
            scores = self.score(torch.tanh(keys.unsqueeze(1) + shift)).squeeze(-1)
            if valid is not None:
                scores = scores.masked_fill(~valid.unsqueeze(1), float("-inf"))
            against = self.score(torch.tanh(self.sentinel(sentinel) + query))
            alpha = scores.softmax(-1)
            beta = torch.cat([scores, against], -1).softmax(-1)[..., -1:]
        context = ops.attend(alpha, values)
        mixed = ops.add(beta * sentinel, (1 - beta) * context)
        return Attended(mixed, context, alpha, beta)
