"""LRP through the spatial transformer as a closed recursion; see `capscope.relevance.recursion`.

Each part of the forward pass returns its value and how it hands relevance back. The weights of
attention, the gate of X-Linear attention and its query are constants; so are the deviations of
normalisation. Positions, of words and of boxes, take their share of the sums that they are in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.relevance.recursion import Recursion, Trace
from capscope.relevance.reference import stabilised

if TYPE_CHECKING:
    from capscope.models.layers.transformer import DecoderLayer, EncoderLayer
    from capscope.models.layers.xlinear import XLinearAttention
    from capscope.models.spatial import SpatialTransformer

Back = Callable[[Tensor], Tensor]
"""Relevance of an output -> relevance of the input."""
Result = tuple[Tensor, Back]


def spatial_lrp(
    captioner: SpatialTransformer, features: Features, word_ids: Tensor, epsilon: float = 0.01
) -> list[list[Trace]]:
    """Explain every word of captions (B, T + 1); returns traces by image and word."""
    captioner.eval()
    with torch.no_grad():
        return [
            [
                _Spatial(captioner, features, row, epsilon).explain(ids[: step + 2])
                for step in range(len(ids) - 1)
            ]
            for row, ids in enumerate(word_ids)
        ]


class _Spatial(Recursion):
    """The recursion for one word of one image; padded regions are left out from the start."""

    def __init__(
        self, captioner: SpatialTransformer, features: Features, row: int, epsilon: float
    ) -> None:
        super().__init__(captioner, features, row, epsilon)
        self.model = captioner
        one = features.select(slice(row, row + 1))
        kept = torch.ones(len(self.cells), dtype=torch.bool)
        self.kept = kept if one.valid is None else one.valid[0]
        boxes = None if one.boxes is None else one.boxes[:, self.kept]
        self.features = Features(one.cells[:, self.kept], boxes)

    def explain(self, word_ids: Tensor) -> Trace:
        """Explain the last word of a caption."""
        model, size = self.model, self.model.hidden_size
        seen, see = self.encoder()
        vectors = model.embedding.weight[word_ids[:-1]] * size**0.5
        x = vectors + model.table[: len(vectors)]

        backs: list[Callable[[Tensor], tuple[Tensor, Tensor]]] = []
        for layer in model.decoder:
            x, back = self.decoder_layer(layer, x, seen)  # type: ignore[arg-type]
            backs.append(back)
        x, normalise = self.norm(model.decoder_norm, x)
        logit, last = self.word(model.words, x[-1], int(word_ids[-1]))
        relevance = torch.zeros_like(x)
        relevance[-1] = last
        relevance = normalise(relevance)
        to_seen = torch.zeros_like(seen)
        for back in reversed(backs):
            relevance, shown = back(relevance)
            to_seen = to_seen + shown
        places = model.table[: len(vectors)]
        to_words, to_places = self.split(relevance, [vectors, places], vectors + places)
        self.lose("positions", to_places)
        cells = torch.zeros_like(self.cells)
        cells[self.kept] = see(to_seen)
        return Trace(logit, cells, to_words, {"encoded": to_seen}, dict(self.lost))

    def encoder(self) -> Result:
        """Encode the regions."""
        model = self.model
        x, project = self.linear(model.projection, self.features.cells[0])
        x = x.relu()
        place = model.positions
        backs = [project]
        if place.kind != "none":
            if place.kind == "gxg":
                x, own = self.linear(place.own_layer, x)
                backs.append(own)
            assert self.features.boxes is not None
            x, add = self.added(x, place.encoding(self.features.boxes.to(x))[0])
            backs.append(add)
        for layer, bias in zip(model.encoder, model.relations(self.features), strict=True):
            x, back = self.encoder_layer(layer, x, bias)  # type: ignore[arg-type]
            backs.append(back)
        x, back = self.norm(model.encoder_norm, x)
        return x, _chain([*backs, back])

    def added(self, x: Tensor, position: Tensor) -> Result:
        """Add positions to x."""
        total = x + position

        def back(relevance: Tensor) -> Tensor:
            own, lost = self.split(relevance, [x, position], total)
            self.lose("positions", lost)
            return own

        return total, back

    def encoder_layer(self, layer: EncoderLayer, x: Tensor, bias: Tensor | None) -> Result:
        """Self-attention, then the feed-forward network, each added to its input."""
        seen, see = self.norm(layer.norms[0], x)
        found, attend = self.attention(layer.attention, seen, seen, bias)
        middle = x + found
        normal, back_normal = self.norm(layer.norms[1], middle)
        more, feed = self.feed_forward(layer.feed_forward, normal)

        def back(relevance: Tensor) -> Tensor:
            to_middle, to_more = self.split(relevance, [middle, more], middle + more)
            to_middle = to_middle + back_normal(feed(to_more))
            to_x, to_found = self.split(to_middle, [x, found], middle)
            return to_x + see(attend(to_found))

        return middle + more, back

    def decoder_layer(
        self, layer: DecoderLayer, x: Tensor, seen: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """Self-attention, attention to the regions, the feed-forward network."""
        own, see = self.norm(layer.norms[0], x)
        found, attend = self.attention(layer.attention, own, own, causal=True)
        first = x + found
        query, _ = self.norm(layer.norms[1], first)  # queries are constants
        if hasattr(layer.cross, "pair"):
            shown, show = self.xlinear(layer.cross, query, seen)  # type: ignore[arg-type]
        else:
            shown, show = self.attention(layer.cross, query, seen)
        second = first + shown
        normal, back_normal = self.norm(layer.norms[2], second)
        more, feed = self.feed_forward(layer.feed_forward, normal)

        def back(relevance: Tensor) -> tuple[Tensor, Tensor]:
            to_second, to_more = self.split(relevance, [second, more], second + more)
            to_second = to_second + back_normal(feed(to_more))
            to_first, to_shown = self.split(to_second, [first, shown], second)
            to_x, to_found = self.split(to_first, [x, found], first)
            return to_x + see(attend(to_found)), show(to_shown)

        return second + more, back

    def linear(self, layer: nn.Linear, x: Tensor) -> Result:
        """Apply a linear layer."""
        z = x @ layer.weight.t() + layer.bias
        return z, lambda relevance: self.L(relevance, x, z, layer.weight, layer.bias)

    def norm(self, layer: Any, x: Tensor) -> Result:
        """Normalise: an affine map, its deviation a constant."""
        y: Tensor = layer(x)
        root_mean_square = hasattr(layer, "scale")
        if root_mean_square:
            factor = layer.scale / (x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5)
        else:
            factor = layer.weight / (x.var(-1, correction=0, keepdim=True) + layer.eps).sqrt()

        def back(relevance: Tensor) -> Tensor:
            quotient = relevance / stabilised(y, self.epsilon)
            self.lose("stabiliser", relevance - quotient * y)
            scaled = quotient * factor
            if root_mean_square:
                found: Tensor = x * scaled
                return found
            self.lose("bias", quotient * layer.bias)
            centred: Tensor = x * (scaled - scaled.mean(-1, keepdim=True))
            return centred

        return y, back

    def feed_forward(self, layer: Any, x: Tensor) -> Result:
        """Two linear layers; the activation between them passes relevance as it is."""
        inner, first = self.linear(layer.inner, x)
        active = inner.relu() if layer.activation == "relu" else nn.functional.gelu(inner)
        outer, second = self.linear(layer.outer, active)
        return outer, lambda relevance: first(second(relevance))

    def attention(
        self, layer: Any, query: Tensor, x: Tensor, bias: Tensor | None = None, causal: bool = False
    ) -> Result:
        """Multi-head attention of queries (K, H) to x (N, H); relevance goes to the values."""
        asked = query @ layer.query.weight.t() + layer.query.bias
        keys = x @ layer.key.weight.t() + layer.key.bias
        values, to_x = self.linear(layer.value, x)
        width = values.shape[1] // layer.heads
        blocks = [slice(j * width, (j + 1) * width) for j in range(layer.heads)]
        weights = []
        for j, block in enumerate(blocks):
            scores = asked[:, block] @ keys[:, block].t() / width**0.5
            if bias is not None:
                scores = scores + bias[0, :, j]
            if causal:
                later = torch.ones_like(scores, dtype=torch.bool).triu(1)
                scores = scores.masked_fill(later, -torch.inf)
            weights.append(scores.softmax(-1))
        sums = torch.cat([weights[j] @ values[:, block] for j, block in enumerate(blocks)], 1)
        found, output = self.linear(layer.output, sums)

        def back(relevance: Tensor) -> Tensor:
            to_sums = output(relevance)
            to_values = torch.zeros_like(values)
            for j, block in enumerate(blocks):
                to_values[:, block] = self.spread_rows(
                    to_sums[:, block], weights[j], values[:, block], sums[:, block]
                )
            return to_x(to_values)

        return found, back

    def spread_rows(
        self, relevance: Tensor, weights: Tensor, values: Tensor, sums: Tensor
    ) -> Tensor:
        """Return the relevance of values (N, d) in sums (K, d), message by message."""
        found = torch.zeros_like(values)
        for i in range(len(weights)):
            found = found + self.spread(relevance[i], weights[i].unsqueeze(1) * values, sums[i])
        return found

    def xlinear(self, layer: XLinearAttention, query: Tensor, x: Tensor) -> Result:
        """X-Linear attention, pair by pair; all relevance goes to what the features bring."""

        def mapped(part: Any, y: Tensor) -> Tensor:
            result: Tensor = part.norm(nn.functional.celu(part.linear(y)))
            return result

        asked, keys, factor = (
            mapped(layer.pair_query, query),
            mapped(layer.key, x),
            mapped(layer.value_query, query),
        )
        inner, to_x = self.linear(layer.value.linear, x)
        values, standardise = self.norm(layer.value.norm, nn.functional.celu(inner))
        pairs = layer.pair(asked[:, None] * keys[None]).relu()
        weights = layer.score(pairs).squeeze(-1).softmax(-1)
        gate = torch.sigmoid(layer.gate(pairs.mean(1)))
        sums = weights @ values

        def back(relevance: Tensor) -> Tensor:
            return to_x(standardise(self.spread_rows(relevance, weights, values, sums)))

        return gate * factor * sums, back


def _chain(backs: list[Back]) -> Back:
    def back(relevance: Tensor) -> Tensor:
        for one in reversed(backs):
            relevance = one(relevance)
        return relevance

    return back
