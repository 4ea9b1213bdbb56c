"""Layers of transformers that normalise what they have added ("post-norm"), as DIFNet's do.

Attention brings its own residual sum, and the layers around it add their input once more: visual
features enter a layer twice. Source: Wu et al. 2022, section 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from capscope.models.layers.cache import Decoded, Past
from capscope.models.layers.transformer import (
    FeedForward,
    ProjectedAttention,
    Sizes,
    normalised,
)
from capscope.relevance import operations as ops


class Embedded(nn.Module):
    """LN(dropout(relu(W x + b))): visual features in the size of the layers.

    Parameters
    ----------
    feature_size, hidden : int
        D and H.
    dropout : float
    """

    def __init__(self, feature_size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_size, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Embed x (B, N, D): (B, N, H)."""
        return ops.normalise(self.norm, self.dropout(ops.rectified_linear(self.linear, x)))


class AddedAttention(nn.Module):
    """LN(x + dropout(attention of x)): multi-head attention with its residual sum."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = ProjectedAttention(sizes.hidden, sizes.heads, sizes.dropout)
        self.norm = nn.LayerNorm(sizes.hidden)
        self.dropout = nn.Dropout(sizes.dropout)
        for layer in self.attention.children():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, values: Tensor, keys: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend with x (B, K, H), see `MultiHeadAttention`: (B, K, H), (B, K, heads, N)."""
        found, weights = self.attention(x, values, keys, valid)
        return ops.normalise(self.norm, ops.add(x, self.dropout(found))), weights


class FlowLayer(nn.Module):
    """A layer of the encoder that `flows` visual flows share.

    a = LN(x + dropout(MHA(x))); y = LN(a + dropout(FFN(a))). All weights are common to the flows,
    the normalisation inside attention among them; the two behind it are each flow's own
    ("iterative independent layer normalisation").
    """

    def __init__(self, sizes: Sizes, flows: int = 1) -> None:
        super().__init__()
        self.attend = AddedAttention(sizes)
        self.feed_forward = FeedForward(sizes)
        self.residual_norms = nn.ModuleList(nn.LayerNorm(sizes.hidden) for _ in range(flows))
        self.output_norms = nn.ModuleList(nn.LayerNorm(sizes.hidden) for _ in range(flows))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, valid: Tensor | None, flow: int = 0) -> tuple[Tensor, Tensor]:
        """Return the next layer's input (B, N, H), and weights (B, N, heads, N)."""
        attention = self.attend.attention
        found, weights = self.attend(x, attention.values(x), attention.keys(x), valid)
        x = normalised(self.residual_norms[flow], ops.add(x, self.dropout(found)))
        found = self.dropout(self.feed_forward(x))
        return normalised(self.output_norms[flow], ops.add(x, found)), weights


class WordLayer(nn.Module):
    """A layer of the decoder: words attend to words, then to visual features."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own = AddedAttention(sizes)
        self.cross = AddedAttention(sizes)
        self.feed_forward = FeedForward(sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.hidden) for _ in range(3))
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(
        self,
        x: Tensor,
        seen: Tensor,
        said: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor | None,
        past: Past | None = None,
    ) -> Decoded:
        """Read Q words x (B K, Q, H).

        Parameters
        ----------
        seen : Tensor (B K, Q, S) bool
            Which words each word attends to: those of the past, then x.
        said : Tensor (B K, Q, 1)
            1, or 0 where x is padding; what comes out there is 0.
        keys, values : Tensor (B, N, H)
            Of the visual features, projected once for each image.
        valid : Tensor (B, N) bool or None
        past : Past or None
        """
        rows, steps, size = x.shape
        attention = self.own.attention
        now = Past(attention.keys(x), attention.values(x)).after(past)
        found, own_weights = self.own(x, now.values, now.keys, seen)
        x = normalised(self.norms[0], ops.add(x, self.dropout(found))) * said
        query = x.reshape(len(keys), -1, size)
        found, weights = self.cross(query, values, keys, valid)
        found = self.dropout(found.reshape(rows, steps, size))
        x = normalised(self.norms[1], ops.add(x, found)) * said
        found = self.dropout(self.feed_forward(x))
        x = normalised(self.norms[2], ops.add(x, found)) * said
        return Decoded(x, now, own_weights, weights)
