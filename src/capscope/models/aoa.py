"""AoA ("MH-FC"): an LSTM, multi-head attention on top of it, a gate, and a linear predictor.

Source: Sun, Lapuschkin, Samek, Binder 2022 (arXiv 2001.01037; "MH-FC" in the paper), after the
decoder of Huang et al. 2019 ("Attention on attention").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.models.captioner import Hidden, Memory, State, Step, SumCaptioner, Summands
from capscope.models.layers.multi_head import MultiHeadAttention
from capscope.models.layers.recurrent import LSTM, Cell
from capscope.relevance import operations as ops
from capscope.relevance.rules import CELL_RECURRENCE, GLOBAL_LATER

WORD, GLOBAL = range(2)  # inputs of the LSTM


class Moments(NamedTuple):
    """All of T steps, each (B, T, ...)."""

    h: Tensor
    c: Tensor
    context: Tensor
    """The heads' sums side by side."""
    gated: Tensor
    """sigma(gate(h)) * linear(context): the summand that joins h."""
    weights: Tensor
    """(B, T, heads, N)."""


class AoA(SumCaptioner):
    """One LSTM whose state attends to grid cells or regions with several heads.

    Step: the LSTM reads [word, mean of the projected features]; its state h is the query of
    multi-head attention; logits = words(dropout(sigma(gate(h)) * linear(context) + h)). The
    context is not fed back, so a teacher-forced pass attends at all steps at once.

    Parameters
    ----------
    vocabulary_size, feature_size, embedding, hidden : int
        V, D, E and H.
    heads : int
        Divides H.
    dropout : float
        On the input of the output layer, in training.
    attention_dropout : float
        On the attention weights, in training.
    parity : bool
        As published: padded regions take part.
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 512,
        hidden: int = 512,
        heads: int = 8,
        dropout: float = 0.3,
        attention_dropout: float = 0.1,
        parity: bool = False,
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.hidden_size = hidden
        self.parity = parity
        self.projection = nn.Linear(feature_size, hidden)
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.lstm = LSTM([embedding, hidden], hidden)
        self.attention = MultiHeadAttention(hidden, heads, attention_dropout)
        self.gate = nn.Linear(hidden, hidden)
        self.linear = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.words = nn.Linear(hidden, vocabulary_size)

    def project(self, features: Features) -> Tensor:
        """Return the rectified projection (B, N, H) of the visual features."""
        return ops.rectified_linear(self.projection, features.cells)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return values, keys and the global feature's share in the LSTM."""
        valid = None if self.parity else features.valid
        pooled = ops.mean(latent, valid)
        memory = {
            "values": self.attention.values(latent),
            "keys": self.attention.keys(latent),
            "global": self.lstm.project(GLOBAL, pooled, bias=True).unsqueeze(1),
        }
        return memory if valid is None else {**memory, "valid": valid}

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return zero states (B, rows, H)."""
        zeros = memory["values"].new_zeros(memory["values"].shape[0], rows, self.hidden_size)
        return {"h": zeros, "c": zeros}

    def attend(self, h: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Attend with h (B, K, H): context, gated context (B, K, H), weights (B, K, heads, N)."""
        context, weights = self.attention(h, memory["values"], memory["keys"], memory.get("valid"))
        return context, ops.gated_linear(self.linear, context, self.gate, h), weights

    def advance(
        self, word_ids: Tensor, state: State, memory: Memory
    ) -> tuple[Summands, State, Tensor]:
        """Take one step with word ids (B, K)."""
        words = self.lstm.project(WORD, ops.embedding(self.embedding, word_ids))
        cell = self.lstm(words + memory["global"], state["h"], state["c"])
        _, gated, weights = self.attend(cell.h, memory)
        return Summands(cell.h, gated), {"h": cell.h, "c": cell.c}, weights

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is (B, K, heads, N)."""
        summands, state, weights = self.advance(word_ids, state, memory)
        logits = self.predict(ops.add(summands.hidden, summands.context))
        return Step(logits.log_softmax(-1), state, weights)

    def step_summands(
        self, word_ids: Tensor, state: State, memory: Memory
    ) -> tuple[Summands, State]:
        """Return h and the gated context of one step."""
        summands, state, _ = self.advance(word_ids, state, memory)
        return summands, state

    def unroll(self, features: Features, word_ids: Tensor) -> Moments:
        """Return all of a teacher-forced pass over word ids (B, T)."""
        memory = ops.border(self.encode(features))
        steps = word_ids.shape[1]
        words = self.lstm.project(WORD, ops.embedding(self.embedding, word_ids))
        projected = words + ops.each_step(memory["global"], steps, GLOBAL_LATER, "first")
        state = self.start(memory)
        cells = [Cell(state["h"], state["c"], None)]
        with self.lstm.over_steps():
            for one in projected.chunk(steps, dim=1):
                cells.append(self.lstm(one, cells[-1].h, ops.cut(cells[-1].c, CELL_RECURRENCE)))
        h = torch.cat([cell.h for cell in cells[1:]], 1)
        c = torch.cat([cell.c for cell in cells[1:]], 1)
        return Moments(h, c, *self.attend(h, memory))

    def summands(self, features: Features, word_ids: Tensor) -> Summands:
        """Return h and the gated context of a teacher-forced pass."""
        moments = self.unroll(features, word_ids)
        return Summands(moments.h, moments.gated)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values are dropout(h + gated), attention (B, T, heads, N)."""
        moments = self.unroll(features, word_ids)
        return Hidden(self.dropout(ops.add(moments.h, moments.gated)), moments.weights)
