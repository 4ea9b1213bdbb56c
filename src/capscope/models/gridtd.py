"""gridTD: adaptive attention on top of an LSTM, and a second LSTM as predictor.

Source: Sun, Lapuschkin, Samek, Binder 2022 (arXiv 2001.01037; "Ada-LSTM" in the paper).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Hidden, Memory, State, Step, SumCaptioner, Summands
from capscope.models.layers.attention import AdaptiveAttention
from capscope.models.layers.recurrent import LSTM
from capscope.relevance import operations as ops
from capscope.relevance.rules import H1_RECURRENCE

PREVIOUS, GLOBAL, WORD = range(3)  # inputs of the attention LSTM
CONTEXT, BELOW = range(2)  # inputs of the language LSTM


class Moment(NamedTuple):
    """All of one step, each (B, K, ...)."""

    h1: Tensor
    c1: Tensor
    h2: Tensor
    c2: Tensor
    sentinel: Tensor
    context: Tensor
    mixed: Tensor
    alpha: Tensor
    beta: Tensor


class GridTD(SumCaptioner):
    """Two-LSTM captioner with adaptive attention over grid cells or regions.

    Step: the attention LSTM reads [h2, global feature, word]; adaptive attention mixes context
    and sentinel; the language LSTM reads [mixed, h1]; logits = readout(dropout(mixed + h2)).

    Parameters
    ----------
    vocabulary_size, feature_size, embedding, hidden : int
        V, D, E and H.
    attention : int
        Width P of the attention; under `parity` it is the number of visual features.
    dropout : float
        On the input of the readout, in training.
    global_from : {"features", "projected"}
        The global feature is relu(W mean(x) + b), with x the features (grid cells) or the
        projected features (regions).
    parity : bool
        As published: scalar broadcast in the attention, padded regions take part, and the
        summands for LRP fine-tuning have a sentinel gate of the new h1 and no dropout.
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
        self.attention_lstm = LSTM([hidden, embedding, embedding], hidden, sentinel=True)
        self.attention = AdaptiveAttention(hidden, attention, parity)
        self.language_lstm = LSTM([hidden, hidden], hidden)
        self.dropout = nn.Dropout(dropout)
        self.words = nn.Linear(hidden, vocabulary_size)

    def project(self, features: Features) -> Tensor:
        """Return the rectified projection (B, N, H) of the visual features."""
        return ops.rectified_linear(self.projection, features.cells)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return values, keys and the global feature's share in the attention LSTM."""
        valid = None if self.parity else features.valid
        source = features.cells if self.global_from == "features" else latent
        pooled = ops.rectified_linear(self.global_projection, ops.mean(source, valid))
        memory = {
            "values": latent,
            "keys": self.attention.keys(latent),
            "global": self.attention_lstm.project(GLOBAL, pooled, bias=True).unsqueeze(1),
        }
        return memory if valid is None else {**memory, "valid": valid}

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return zero states (B, rows, H)."""
        zeros = memory["values"].new_zeros(memory["values"].shape[0], rows, self.hidden_size)
        return {"h1": zeros, "c1": zeros, "h2": zeros, "c2": zeros}

    def advance(
        self, words: Tensor, state: State, memory: Memory, late_sentinel: bool = False
    ) -> Moment:
        """Take one step with projected words (B, K, 5H)."""
        projected = words + memory["global"] + self.attention_lstm.project(PREVIOUS, state["h2"])
        h1 = ops.cut(state["h1"], H1_RECURRENCE)
        below = self.attention_lstm(projected, h1, state["c1"], late_sentinel)
        attended = self.attention(
            below.h, below.sentinel, memory["values"], memory["keys"], memory.get("valid")
        )
        projected = self.language_lstm.project(CONTEXT, attended.mixed, bias=True)
        projected = projected + self.language_lstm.project(BELOW, below.h)
        above = self.language_lstm(projected, state["h2"], state["c2"])
        return Moment(
            below.h,
            below.c,
            above.h,
            above.c,
            below.sentinel,
            attended.context,
            attended.mixed,
            attended.alpha,
            attended.beta,
        )

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is alpha (B, K, N)."""
        words = self.attention_lstm.project(WORD, ops.embedding(self.embedding, word_ids))
        moment = self.advance(words, state, memory)
        values = self.dropout(ops.add(moment.mixed, moment.h2))
        log_probs = self.readout(values).log_softmax(-1)
        return Step(log_probs, _state(moment), moment.alpha)

    def unroll(
        self, features: Features, word_ids: Tensor, late_sentinel: bool = False
    ) -> Iterator[Moment]:
        """Yield the moments (K = 1) of a teacher-forced pass over word ids (B, T)."""
        memory = ops.border(self.encode(features))
        state = self.start(memory)
        words = self.attention_lstm.project(WORD, ops.embedding(self.embedding, word_ids))
        with self.attention_lstm.over_steps(), self.language_lstm.over_steps():
            for word in words.chunk(word_ids.shape[1], dim=1):
                moment = self.advance(word, state, memory, late_sentinel)
                state = _state(moment)
                yield moment

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values are dropout(mixed + h2) and attention is alpha."""
        moments = list(self.unroll(features, word_ids))
        mixed = torch.cat([moment.mixed for moment in moments], 1)
        h2 = torch.cat([moment.h2 for moment in moments], 1)
        attention = torch.cat([moment.alpha for moment in moments], 1)
        return Hidden(self.dropout(ops.add(mixed, h2)), attention)

    def summands(self, features: Features, word_ids: Tensor) -> Summands:
        """Return h2 and the mixed context of a teacher-forced pass."""
        moments = list(self.unroll(features, word_ids, late_sentinel=self.parity))
        return Summands(
            torch.cat([moment.h2 for moment in moments], 1),
            torch.cat([moment.mixed for moment in moments], 1),
        )

    def step_summands(
        self, word_ids: Tensor, state: State, memory: Memory
    ) -> tuple[Summands, State]:
        """Return h2 and the mixed context of one step."""
        words = self.attention_lstm.project(WORD, ops.embedding(self.embedding, word_ids))
        moment = self.advance(words, state, memory, late_sentinel=self.parity)
        return Summands(moment.h2, moment.mixed), _state(moment)

    def predict(self, total: Tensor) -> Tensor:
        """Return logits of weighted sums."""
        return self.readout(total if self.parity else self.dropout(total))


def _state(moment: Moment) -> State:
    return {"h1": moment.h1, "c1": moment.c1, "h2": moment.h2, "c2": moment.c2}
