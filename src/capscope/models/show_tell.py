"""Show and tell: the image is the first input of an LSTM or GRU, words follow.

Source: Vinyals et al. 2015, as programmed beside the spatial transformer.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step
from capscope.models.layers.stacked import Kind, Stack
from capscope.relevance import operations as ops


class ShowTell(Captioner):
    """A stack of cells that reads the mean of the visual features, the start, then the words.

    Parameters
    ----------
    vocabulary_size, feature_size, embedding, hidden : int
        V, D, E and H.
    cell : {"lstm", "gru"}
    layers : int
        Cells on top of each other.
    dropout : float
        Between cells and before the output layer, in training.
    """

    attends: ClassVar[bool] = False

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 512,
        hidden: int = 512,
        cell: Kind = "lstm",
        layers: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.hidden_size = vocabulary_size, hidden
        self.projection = nn.Linear(feature_size, embedding)
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.stack = Stack(cell, embedding, hidden, layers, dropout)
        self.words = nn.Linear(hidden, vocabulary_size)
        self.dropout = nn.Dropout(dropout)
        for weight in (self.embedding.weight, self.words.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.words.bias)

    def project(self, features: Features) -> Tensor:
        """Return the visual features (B, N, D) themselves."""
        return features.cells

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the embedded image (B, 1, E)."""
        pooled = ops.mean(latent, features.valid)
        return {"image": ops.linear(self.projection, pooled).unsqueeze(1)}

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the state after the image, `rows` times."""
        image = memory["image"]
        zeros = image.new_zeros(len(image), 1, self.hidden_size)
        state: State = self.stack(image, self.stack.start([zeros] * len(self.stack.cells)))
        return {name: tensor.expand(-1, rows, -1) for name, tensor in state.items()}

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K)."""
        state = self.stack(ops.embedding(self.embedding, word_ids), state)
        logits = self.readout(self.dropout(self.stack.top(state)))
        return Step(logits.log_softmax(-1), state, None)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values are the states of the last cell."""
        state = self.start(ops.border(self.encode(features)))
        embedded = ops.embedding(self.embedding, word_ids)
        values = []
        for words in embedded.chunk(word_ids.shape[1], dim=1):
            state = self.stack(words, state)
            values.append(self.stack.top(state))
        return Hidden(self.dropout(torch.cat(values, 1)), None)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits, or only those of `ids`."""
        if ids is None:
            return ops.linear(self.words, hidden)
        return ops.selected_linear(self.words, hidden, ids)
