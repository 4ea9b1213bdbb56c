"""Adaptive attention: one LSTM with a visual sentinel, and a linear predictor.

Source: Lu, Xiong, Parikh, Socher 2017 (arXiv 1612.01887), as programmed by Sun, Lapuschkin, Samek,
Binder 2022 ("adaptive": it is in their code and not in their tables).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Hidden, Memory, State, Step, SumCaptioner, Summands
from capscope.models.layers.attention import AdaptiveAttention, Attended
from capscope.models.layers.recurrent import LSTM, Cell
from capscope.relevance import operations as ops
from capscope.relevance.rules import BIAS_LEFT_OUT, CANDIDATE_OUTPUT, GLOBAL_BEFORE

WORD, GLOBAL = range(2)  # inputs of the LSTM


class Moments(NamedTuple):
    """All of T steps, each (B, T, ...)."""

    h: Tensor
    c: Tensor
    sentinel: Tensor
    context: Tensor
    mixed: Tensor
    alpha: Tensor
    beta: Tensor


class Adaptive(SumCaptioner):
    """One LSTM with adaptive attention over grid cells or regions.

    Step: the LSTM reads [word, global feature]; adaptive attention mixes context and sentinel;
    logits = words(dropout(mixed + h)). The LSTM does not depend on attention, so a teacher-forced
    pass attends at all steps at once.

    Parameters
    ----------
    vocabulary_size, feature_size, embedding, hidden : int
        V, D, E and H.
    attention : int
        Width P of the attention; under `parity` it is the number of visual features.
    dropout : float
        On the input of the output layer, in training.
    global_from : {"features", "projected"}
        The global feature is relu(W mean(x) + b), with x the features (grid cells) or the
        projected features (regions).
    parity : bool
        As published: scalar broadcast in the attention, padded regions take part.
    """

    by_kind: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "grid": {"global_from": "features"},
        "regions": {"global_from": "projected"},
    }

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 512,
        hidden: int = 512,
        attention: int = 512,
        dropout: float = 0.5,
        global_from: Literal["features", "projected"] = "features",
        parity: bool = False,
    ) -> None:
        super().__init__()
        if global_from not in ("features", "projected"):
            raise CapscopeError(f"global_from is {global_from!r}; allowed: features, projected")
        self.vocabulary_size = vocabulary_size
        self.hidden_size = hidden
        self.global_from = global_from
        self.parity = parity
        self.projection = nn.Linear(feature_size, hidden)
        size = feature_size if global_from == "features" else hidden
        self.global_projection = nn.Linear(size, embedding)
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        self.lstm = LSTM([embedding, embedding], hidden, sentinel=True, candidate=CANDIDATE_OUTPUT)
        self.attention = AdaptiveAttention(hidden, attention, parity)
        self.dropout = nn.Dropout(dropout)
        self.words = nn.Linear(hidden, vocabulary_size)

    def project(self, features: Features) -> Tensor:
        """Return the rectified projection (B, N, H) of the visual features."""
        return ops.rectified_linear(self.projection, features.cells, BIAS_LEFT_OUT)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return values, keys and the global feature's share in the LSTM."""
        valid = None if self.parity else features.valid
        source = features.cells if self.global_from == "features" else latent
        average = ops.mean(source, valid)
        pooled = ops.rectified_linear(self.global_projection, average, BIAS_LEFT_OUT)
        memory = {
            "values": latent,
            "keys": self.attention.keys(latent),
            "global": self.lstm.project(GLOBAL, pooled, bias=True).unsqueeze(1),
        }
        return memory if valid is None else {**memory, "valid": valid}

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return zero states (B, rows, H)."""
        zeros = memory["values"].new_zeros(memory["values"].shape[0], rows, self.hidden_size)
        return {"h": zeros, "c": zeros}

    def attend(self, h: Tensor, sentinel: Tensor, memory: Memory) -> Attended:
        """Attend with h and sentinel (B, K, H)."""
        values, keys = memory["values"], memory["keys"]
        attended: Attended = self.attention(h, sentinel, values, keys, memory.get("valid"))
        return attended

    def advance(
        self, word_ids: Tensor, state: State, memory: Memory
    ) -> tuple[Summands, State, Attended]:
        """Take one step with word ids (B, K)."""
        words = self.lstm.project(WORD, ops.embedding(self.embedding, word_ids))
        cell = self.lstm(words + memory["global"], state["h"], state["c"])
        attended = self.attend(cell.h, cell.sentinel, memory)
        return Summands(cell.h, attended.mixed), {"h": cell.h, "c": cell.c}, attended

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is alpha (B, K, N)."""
        summands, state, attended = self.advance(word_ids, state, memory)
        logits = self.predict(ops.add(summands.context, summands.hidden))
        return Step(logits.log_softmax(-1), state, attended.alpha)

    def step_summands(
        self, word_ids: Tensor, state: State, memory: Memory
    ) -> tuple[Summands, State]:
        """Return h and the mixed context of one step."""
        summands, state, _ = self.advance(word_ids, state, memory)
        return summands, state

    def unroll(self, features: Features, word_ids: Tensor) -> Moments:
        """Return all of a teacher-forced pass over word ids (B, T)."""
        memory = ops.border(self.encode(features))
        steps = word_ids.shape[1]
        words = self.lstm.project(WORD, ops.embedding(self.embedding, word_ids))
        projected = words + ops.each_step(memory["global"], steps, GLOBAL_BEFORE, "own")
        state = self.start(memory)
        cells = [Cell(state["h"], state["c"], None)]
        with self.lstm.over_steps():
            for one in projected.chunk(steps, dim=1):
                cells.append(self.lstm(one, cells[-1].h, cells[-1].c))
        h, c, sentinel = (torch.cat(parts, 1) for parts in zip(*cells[1:], strict=True))
        attended = self.attend(h, sentinel, memory)
        return Moments(
            h, c, sentinel, attended.context, attended.mixed, attended.alpha, attended.beta
        )

    def summands(self, features: Features, word_ids: Tensor) -> Summands:
        """Return h and the mixed context of a teacher-forced pass."""
        moments = self.unroll(features, word_ids)
        return Summands(moments.h, moments.mixed)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values are dropout(mixed + h) and attention is alpha."""
        moments = self.unroll(features, word_ids)
        return Hidden(self.dropout(ops.add(moments.mixed, moments.h)), moments.alpha)
