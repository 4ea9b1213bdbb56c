"""Show, attend and tell: the cells read the word and what the state before it attends to.

Source: Xu et al. 2015, soft attention, in the form that the object relation transformer is compared
with (no gate, no doubly stochastic penalty).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step
from capscope.models.layers.multi_head import masked_softmax
from capscope.models.layers.stacked import Kind, Stack
from capscope.relevance import operations as ops


class ShowAttendTell(Captioner):
    """A stack of cells begun with a linear function of the mean feature, with additive attention.

    Features are weighed by softmax(w tanh(Wa v + Wh h)), with h the last cell's state before the
    step; the cells read [word, weighted sum of features].

    Parameters
    ----------
    vocabulary_size, feature_size, embedding, hidden : int
        V, D, E and H.
    attention : int
        Channels of the attention; 0 adds a linear score of the feature to one of the state.
    cell : {"lstm", "gru"}
    layers : int
        Cells on top of each other.
    dropout : float
        Between cells and before the output layer, in training.
    parity : bool
        As published: padded regions take part.
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 512,
        hidden: int = 512,
        attention: int = 512,
        cell: Kind = "lstm",
        layers: int = 1,
        dropout: float = 0.5,
        parity: bool = False,
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.hidden_size = vocabulary_size, hidden
        self.attention, self.parity = attention, parity
        self.first = nn.Linear(feature_size, layers * hidden)
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.stack = Stack(cell, embedding + feature_size, hidden, layers, dropout)
        self.visual = nn.Linear(feature_size, attention or 1)
        self.query = nn.Linear(hidden, attention or 1)
        self.score = nn.Linear(attention, 1) if attention else None
        self.words = nn.Linear(hidden, vocabulary_size)
        self.dropout = nn.Dropout(dropout)
        for weight in (self.embedding.weight, self.words.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.words.bias)

    def project(self, features: Features) -> Tensor:
        """Return the visual features (B, N, D) themselves."""
        return features.cells

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the features, their share in the attention scores and the first state."""
        valid = None if self.parity else features.valid
        with ops.constant("attention"):
            keys = ops.linear(self.visual, latent)
        first = ops.linear(self.first, ops.mean(latent, valid))
        memory = {"values": latent, "keys": keys, "first": first.unsqueeze(1)}
        return memory if valid is None else {**memory, "valid": valid}

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return h = c of each layer, `rows` times."""
        first = memory["first"].expand(-1, rows, -1)
        return self.stack.start(torch.split(first, self.hidden_size, -1))

    def attend(self, state: State, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the weighted sum (B, K, D) of features, and the weights (B, K, N)."""
        with ops.constant("attention"):
            query = ops.linear(self.query, self.stack.top(state)).unsqueeze(2)
            scores = ops.add(
                query.expand(-1, -1, memory["keys"].shape[1], -1),
                memory["keys"].unsqueeze(1).expand(-1, query.shape[1], -1, -1),
            )
            if self.score is not None:
                scores = ops.linear(self.score, ops.tanh(scores))
            scores = scores.squeeze(-1)
            if "valid" in memory:
                weights = masked_softmax(scores, memory["valid"].unsqueeze(1))
            else:
                weights = scores.softmax(-1)
        return ops.attend(weights, memory["values"]), weights

    def advance(self, words: Tensor, state: State, memory: Memory) -> tuple[State, Tensor]:
        """Take one step with embedded words (B, K, E); return the state and the weights."""
        context, weights = self.attend(state, memory)
        following: State = self.stack(torch.cat([words, context], -1), state)
        return following, weights

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is (B, K, N)."""
        state, weights = self.advance(ops.embedding(self.embedding, word_ids), state, memory)
        logits = self.readout(self.dropout(self.stack.top(state)))
        return Step(logits.log_softmax(-1), state, weights)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values are the states of the last cell, attention (B, T, N)."""
        memory = ops.border(self.encode(features))
        state = self.start(memory)
        values, maps = [], []
        for words in ops.embedding(self.embedding, word_ids).chunk(word_ids.shape[1], dim=1):
            state, weights = self.advance(words, state, memory)
            values.append(self.stack.top(state))
            maps.append(weights)
        return Hidden(self.dropout(torch.cat(values, 1)), torch.cat(maps, 1))

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits, or only those of `ids`."""
        if ids is None:
            return ops.linear(self.words, hidden)
        return ops.selected_linear(self.words, hidden, ids)
