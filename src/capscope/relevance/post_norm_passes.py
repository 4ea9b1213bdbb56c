"""Layers that normalise what they have added: forward, and back by alpha-beta rules.

The rules of normalisations, rectifiers and masks are to pass relevance as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from capscope.relevance.alpha_beta import (
    AlphaBeta,
    AttentionPass,
    LinearPass,
    Matrix,
    Rows,
    add,
    clone,
)

if TYPE_CHECKING:
    from capscope.models.layers.post_norm import AddedAttention, Embedded, FlowLayer, WordLayer
    from capscope.models.layers.transformer import FeedForward


class Weights:
    """The weights of a captioner as rules need them; taken anew when they have changed."""

    def __init__(self, rules: AlphaBeta) -> None:
        self.rules = rules
        self._known: dict[int, tuple[int, Tensor, Matrix]] = {}

    def matrix(self, layer: nn.Linear) -> Matrix:
        """Return the weight of a layer, that of the last use if it is the same."""
        weight = layer.weight
        known = self._known.get(id(layer))
        if known is None or known[0] != weight._version or known[1] is not weight:
            known = weight._version, weight, Matrix(layer, self.rules)
            self._known[id(layer)] = known
        return known[2]


def normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply layer normalisation in the type of x; relevance passes it as it is."""
    assert isinstance(norm, nn.LayerNorm)
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    return nn.functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


class EmbeddedPass:
    """Visual features embedded, and the way back."""

    def __init__(self, weights: Weights, layer: Embedded, x: Tensor) -> None:
        x = x.detach().to(weights.rules.exact)
        self.linear = weights.matrix(layer.linear)(x, bool((x >= 0).all()))
        self.y = normalise(layer.norm, self.linear.y.relu())

    def back(self, r: Tensor, rows: Rows) -> Tensor:
        """Return the relevance (B, P, D) of what was embedded."""
        return self.linear.back(r, rows)


class AttentionAdded:
    """Attention with its residual sum, and the way back."""

    def __init__(
        self, weights: Weights, layer: AddedAttention, x: Tensor, read: Tensor, hidden: Tensor
    ) -> None:
        attention = layer.attention
        self.over, self.x = weights.rules.over, x
        self.query = weights.matrix(attention.query)(x)
        self.keys = weights.matrix(attention.key)(read)
        self.values = weights.matrix(attention.value)(read)
        self.attention = AttentionPass(
            self.query.y, self.keys.y, self.values.y, attention.heads, hidden, weights.rules.carried
        )
        self.output = weights.matrix(attention.output)(self.attention.sums)
        self.y = normalise(layer.norm, x + self.output.y)

    def back(self, r: Tensor, rows: Rows, below: Rows) -> tuple[Tensor, Tensor]:
        """Return the relevance of x (B, P, H), and of what is read in the rows `below`."""
        own, found = add((self.x, self.output.y), r, rows, self.over)
        attended = self.attention.back(self.output.back(found, rows), rows)
        query = self.query.back(attended.query, rows)
        keys = self.keys.back(below.listed(attended.keys), below)
        values = self.values.back(below.listed(attended.values), below)
        return clone(self.x, own + query, rows), keys + values


class FeedForwardAdded:
    """A feed-forward network with its residual sum, and the way back."""

    def __init__(self, weights: Weights, layer: FeedForward, norm: nn.Module, x: Tensor) -> None:
        self.over, self.x = weights.rules.over, x
        self.inner = weights.matrix(layer.inner)(x)
        self.outer: LinearPass = weights.matrix(layer.outer)(self.inner.y.relu(), True)
        self.y = normalise(norm, x + self.outer.y)

    def back(self, r: Tensor, rows: Rows) -> Tensor:
        """Return the relevance (B, P, H) of x."""
        own, found = add((self.x, self.outer.y), r, rows, self.over)
        return clone(self.x, own + self.inner.back(self.outer.back(found, rows), rows), rows)


class FlowPass:
    """A layer of the encoder, and the way back."""

    def __init__(
        self, weights: Weights, layer: FlowLayer, x: Tensor, hidden: Tensor, flow: int = 0
    ) -> None:
        self.over, self.x = weights.rules.over, x
        self.attention = AttentionAdded(weights, layer.attend, x, x, hidden)
        middle = normalise(layer.residual_norms[flow], x + self.attention.y)
        self.feed = FeedForwardAdded(weights, layer.feed_forward, layer.output_norms[flow], middle)
        self.y = self.feed.y

    def back(self, r: Tensor, rows: Rows) -> Tensor:
        """Return the relevance (B, P, H) of x."""
        r = self.feed.back(r, rows)
        own, found = add((self.x, self.attention.y), r, rows, self.over)
        query, read = self.attention.back(found, rows, rows)
        return clone(self.x, own + query + read, rows)


class WordPass:
    """A layer of the decoder, and the way back."""

    def __init__(
        self,
        weights: Weights,
        layer: WordLayer,
        x: Tensor,
        said: Tensor,
        hidden: Tensor,
        encoded: Tensor,
        hidden_cells: Tensor,
    ) -> None:
        self.over, self.x, self.encoded = weights.rules.over, x, encoded
        kept = said.unsqueeze(-1).to(x.dtype)
        self.own = AttentionAdded(weights, layer.own, x, x, hidden)
        self.middle = normalise(layer.norms[0], x + self.own.y) * kept
        self.cross = AttentionAdded(weights, layer.cross, self.middle, encoded, hidden_cells)
        top = normalise(layer.norms[1], self.middle + self.cross.y) * kept
        self.feed = FeedForwardAdded(weights, layer.feed_forward, layer.norms[2], top)
        self.y = self.feed.y * kept

    def back(self, r: Tensor, rows: Rows) -> tuple[Tensor, Rows, Tensor]:
        """Return the relevance of x, its rows, and the relevance (B, K, N, H) of the encoder."""
        r = self.feed.back(r, rows)
        cells = Rows.all(rows.words, self.encoded.shape[1])
        skipped, found = add((self.middle, self.cross.y), r, rows, self.over)
        query, read = self.cross.back(found, rows, cells)
        r = clone(self.middle, skipped + query, rows)
        skipped, found = add((self.x, self.own.y), r, rows, self.over)
        below = Rows.before(rows.words)
        query, words = self.own.back(found, rows, below)
        above = below.listed(rows.dense(skipped + query))
        to_encoder = cells.apart(clone(self.encoded, read, cells))
        return clone(self.x, above + words, below), below, to_encoder
