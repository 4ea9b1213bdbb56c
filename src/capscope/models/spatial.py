"""The spatial transformer: encoder and decoder, region positions, X-Linear attention.

Sources: Vaswani et al. 2017 (transformer), Herdade et al. 2019 (on regions), Pan et al. 2020
(X-Linear attention); positions by the spread of a box over a grid are the program's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.models.captioner import (
    Captioner,
    Hidden,
    Memory,
    State,
    Step,
)
from capscope.models.layers.box_positions import BoxPositions, Kind
from capscope.models.layers.cache import Decoded, Past, hidden_of, nothing_read, pasts, state_after
from capscope.models.layers.transformer import (
    LONGEST,
    Activation,
    Cross,
    DecoderLayer,
    EncoderLayer,
    Norm,
    Sizes,
    build_norm,
    earlier,
    normalised,
    sinusoids,
)
from capscope.relevance import operations as ops


class Encoded(NamedTuple):
    """What the encoder makes of B images."""

    values: Tensor
    """(B, N, H)."""
    weights: list[Tensor]
    """(B, N, heads, N) of each layer."""


class SpatialTransformer(Captioner):
    """A transformer on regions, with positions from their boxes.

    Keys and values of the visual features are projected once for each image and kept in the
    memory; the state keeps those of the words, which decoding appends to. `hidden` takes K captions
    of each image, too: word ids (B K, T), the K of an image one after the other.

    Parameters
    ----------
    vocabulary_size, feature_size : int
        V and D.
    hidden, heads, feed_forward, layers : int
        H, its heads, inner size of the feed-forward networks, layers of encoder and of decoder.
    positions : {"none", "fixed", "learned", "gxg", "g2", "box"}
        See `BoxPositions`; all but none need boxes.
    grid : int
        Rows and columns of the grid that boxes are spread over.
    grid_mode : {"box", "cell"}
    cross : {"dot_product", "xlinear"}
        How words attend to visual features.
    norm : {"layer", "rms"}
    activation : {"relu", "gelu"}
    dropout : float
        On all attention weights, inner layers and sums, in training.
    """

    folds: ClassVar[bool] = True

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        hidden: int = 512,
        heads: int = 8,
        feed_forward: int = 2048,
        layers: int = 6,
        positions: Kind = "gxg",
        grid: int = 12,
        grid_mode: Literal["box", "cell"] = "box",
        cross: Cross = "xlinear",
        norm: Norm = "layer",
        activation: Activation = "relu",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.hidden_size = vocabulary_size, hidden
        sizes = Sizes(hidden, heads, feed_forward, dropout, norm, activation)
        self.positions = BoxPositions(positions, hidden, grid, grid_mode, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(layers))
        self.encoder_norm = build_norm(norm, hidden)
        self.embedding = nn.Embedding(vocabulary_size, hidden)
        self.decoder = nn.ModuleList(DecoderLayer(sizes, cross) for _ in range(layers))
        self.decoder_norm = build_norm(norm, hidden)
        self.words = nn.Linear(hidden, vocabulary_size)
        self.dropout = nn.Dropout(dropout)
        self.table: Tensor
        self.register_buffer("table", sinusoids(LONGEST, hidden), persistent=False)
        self.draw_matrices()
        self.projection = nn.Linear(feature_size, hidden)

    def draw_matrices(self) -> None:
        """Draw all matrices anew (Glorot and Bengio 2010), word vectors among them."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def project(self, features: Features) -> Tensor:
        """Return the rectified projection (B, N, H) of the visual features, 0 for padding."""
        latent: Tensor = self.dropout(ops.rectified_linear(self.projection, features.cells))
        if features.valid is None:
            return latent
        return latent * features.valid.unsqueeze(-1).to(latent.dtype)

    def encoded(self, latent: Tensor, features: Features) -> Encoded:
        """Run the encoder on latent features (B, N, H)."""
        x = self.positions(latent, features)
        weights = []
        for layer, relations in zip(self.encoder, self.relations(features), strict=True):
            x, own = layer(x, features.valid, relations)
            weights.append(own)
        return Encoded(normalised(self.encoder_norm, x), weights)

    def relations(self, features: Features) -> Sequence[Tensor | None]:
        """Return what is added to the scores of each encoder layer, (B, N, heads, N) or None."""
        return [None] * len(self.encoder)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return keys and values for each layer of the decoder."""
        return self._remembered(self.encoded(latent, features).values, features)

    def _remembered(self, values: Tensor, features: Features) -> Memory:
        memory: Memory = {}
        for number, layer in enumerate(self.decoder):
            keys, kept = layer.remember(values)  # type: ignore[operator]
            memory[f"keys{number}"], memory[f"values{number}"] = keys, kept
        return memory if features.valid is None else {**memory, "valid": features.valid}

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the state before the first word: nothing has been read."""
        return nothing_read(memory["values0"], rows, len(self.decoder))

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is that of the last layer, (B, K, heads, N)."""
        batch, rows = word_ids.shape
        read = torch.cat([state["read"], torch.ones_like(word_ids[..., None], dtype=torch.bool)], 2)
        place = state["read"].sum(-1)  # rows that sat a step out have read less
        x = self.embedded(word_ids, self.table[place]).reshape(batch * rows, 1, -1)
        seen = read.reshape(batch * rows, 1, -1)
        past = pasts(state, len(self.decoder))
        x, layers = self._decoded(x, seen, memory, past)
        log_probs = self.readout(x).log_softmax(-1).view(batch, rows, -1)
        return Step(log_probs, state_after(read, layers), layers[-1].cross)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B K, T) in one pass; attention (B K, T, heads, N) of the last layer."""
        encoded = self.encoded(self.project(features), features)
        memory = ops.border(self._remembered(encoded.values, features))
        steps = word_ids.shape[1]
        x = self.embedded(word_ids, self.table[:steps])
        x, layers = self._decoded(x, earlier(steps, x.device), memory, [None] * len(self.decoder))
        return hidden_of(x, encoded.weights, layers)

    def embedded(self, word_ids: Tensor, places: Tensor) -> Tensor:
        """Return word vectors times sqrt(H), plus those of their places."""
        scaled = ops.embedding(self.embedding, word_ids) * self.hidden_size**0.5
        found: Tensor = self.dropout(ops.add(scaled, places))
        return found

    def _decoded(
        self, x: Tensor, seen: Tensor, memory: Memory, past: list[Past] | list[None]
    ) -> tuple[Tensor, list[Decoded]]:
        """Run the decoder on embedded words (B K, Q, H)."""
        layers: list[Decoded] = []
        for i, layer in enumerate(self.decoder):
            found = layer(
                x, seen, memory[f"keys{i}"], memory[f"values{i}"], memory.get("valid"), past[i]
            )
            layers.append(found)
            x = found.x
        return normalised(self.decoder_norm, x), layers

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits, or only those of `ids`."""
        if ids is None:
            return ops.linear(self.words, hidden)
        return ops.selected_linear(self.words, hidden, ids)
