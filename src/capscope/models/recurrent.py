"""The recurrent family: vanilla RNN, LSTM, and LSTM with dot-product attention over the grid.

Sources: Vinyals et al. 2015 (Show and Tell; the image starts the recurrence), Xu et al. 2015 (Show,
Attend and Tell; here with parameter-free dot-product attention, no gate and no initial network).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step
from capscope.models.layers.multi_head import attention_weights, masked_softmax
from capscope.models.layers.recurrent import RNN, SingleBiasLSTM, WordEmbedding
from capscope.models.layers.shared_weight import SharedWeight
from capscope.relevance import operations as ops
from capscope.relevance.product import product

WORD, CONTEXT = range(2)  # inputs of the cells


class Moment(NamedTuple):
    """All of one step."""

    h: Tensor
    """(B, K, H)."""
    state: State
    attention: Tensor | None
    """(B, K, N), or None."""


class Recurrent(Captioner):
    """What the three captioners share: embedded words, one cell, linear output.

    Parameters
    ----------
    vocabulary_size, feature_size, embedding, hidden : int
        V, D, W and H.
    """

    def __init__(self, vocabulary_size: int, feature_size: int, embedding: int, hidden: int):
        super().__init__()
        self.vocabulary_size, self.feature_size = vocabulary_size, feature_size
        self.embedding = WordEmbedding(vocabulary_size, embedding)
        self.words = nn.Linear(hidden, vocabulary_size)

    @abstractmethod
    def advance(self, words: Tensor, state: State, memory: Memory) -> Moment:
        """Take one step with projected words (B, K, ...)."""

    @abstractmethod
    def projected(self, word_ids: Tensor) -> Tensor:
        """Return the words' share (B, T, ...) in the pre-activations of the cell."""

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K)."""
        moment = self.advance(self.projected(word_ids), state, memory)
        return Step(self.readout(moment.h).log_softmax(-1), moment.state, moment.attention)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values are the hidden states."""
        memory = ops.border(self.encode(features))
        state = self.start(memory)
        moments = []
        for words in self.projected(word_ids).chunk(word_ids.shape[1], dim=1):
            moments.append(self.advance(words, state, memory))
            state = moments[-1].state
        maps = [moment.attention for moment in moments if moment.attention is not None]
        values = torch.cat([moment.h for moment in moments], 1)
        return Hidden(values, torch.cat(maps, 1) if maps else None)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits, or only those of `ids`."""
        if ids is None:
            return linear(self.words, hidden)
        return ops.selected_linear(self.words, hidden, ids)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer; without relevance, by the faster product."""
    if ops.in_relevance_mode():
        return ops.linear(layer, x)
    return product(x, layer.weight, layer.bias)


class ImageFirst(Recurrent):
    """A captioner whose first hidden state is all that it sees of the image.

    Parameters
    ----------
    visual : {"mean", "flatten"}
        The first state is a linear function of the mean of the visual features (D inputs), or of
        all of them (N D inputs, channel by channel; what the published program does, though its
        description says mean).
    cells : int or None
        N, needed to flatten.
    """

    attends: ClassVar[bool] = False

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 256,
        hidden: int = 512,
        visual: Literal["mean", "flatten"] = "mean",
        cells: int | None = None,
    ) -> None:
        super().__init__(vocabulary_size, feature_size, embedding, hidden)
        if visual not in ("mean", "flatten"):
            raise CapscopeError(f"visual is {visual!r}; allowed: mean, flatten")
        if visual == "flatten" and not cells:
            raise CapscopeError("visual: flatten needs `cells`, the number of visual features")
        self.visual, self.cells = visual, cells
        size = feature_size if visual == "mean" else feature_size * (cells or 1)
        self.first = nn.Linear(size, hidden)
        self.cell = self.new_cell(embedding, hidden)

    @abstractmethod
    def new_cell(self, embedding: int, hidden: int) -> nn.Module:
        """Return the cell with new weights."""

    def project(self, features: Features) -> Tensor:
        """Return the visual features (B, N, D) themselves."""
        return features.cells

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the first hidden state (B, 1, H)."""
        if self.visual == "mean":
            seen = ops.mean(latent, features.valid)
        elif latent.shape[1] != self.cells:
            raise CapscopeError(
                f"{latent.shape[1]} visual features, but this captioner flattens {self.cells}: "
                "set `cells` to the number of features, or visual to mean"
            )
        else:
            seen = latent.transpose(1, 2).flatten(1)
        return {"first": linear(self.first, seen).unsqueeze(1)}


class VanillaRNN(ImageFirst):
    """h = tanh(W_x x + W_h h + b), begun with a linear function of the image.

    Parameters
    ----------
    recurrent : {"identity", "normal"}
        W_h of new weights; normal as published. The other parameters are those of `ImageFirst`.
    """

    cell: RNN

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 256,
        hidden: int = 512,
        visual: Literal["mean", "flatten"] = "mean",
        cells: int | None = None,
        recurrent: Literal["identity", "normal"] = "identity",
    ) -> None:
        super().__init__(vocabulary_size, feature_size, embedding, hidden, visual, cells)
        if recurrent not in ("identity", "normal"):
            raise CapscopeError(f"recurrent is {recurrent!r}; allowed: identity, normal")
        if recurrent == "identity":
            self.cell.remember()

    def new_cell(self, embedding: int, hidden: int) -> RNN:
        """Return the cell with new weights."""
        return RNN(embedding, hidden)

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the first hidden state, `rows` times."""
        return {"h": memory["first"].expand(-1, rows, -1)}

    def projected(self, word_ids: Tensor) -> Tensor:
        """Return W_x x + b (B, T, H)."""
        return self.cell.project(ops.embedding(self.embedding, word_ids))

    def advance(self, words: Tensor, state: State, memory: Memory) -> Moment:
        """Take one step."""
        h = self.cell(words, state["h"])
        return Moment(h, {"h": h}, None)


class LSTMCaptioner(ImageFirst):
    """An LSTM begun with a linear function of the image as h, and c = 0.

    Parameters
    ----------
    forget_bias : float
        Of new weights; 0 as published. The other parameters are those of `ImageFirst`.
    """

    cell: SingleBiasLSTM

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 256,
        hidden: int = 512,
        visual: Literal["mean", "flatten"] = "mean",
        cells: int | None = None,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__(vocabulary_size, feature_size, embedding, hidden, visual, cells)
        self.cell.remember(forget_bias)

    def new_cell(self, embedding: int, hidden: int) -> SingleBiasLSTM:
        """Return the cell with new weights."""
        return SingleBiasLSTM([embedding], hidden)

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the first hidden state, `rows` times, and c = 0."""
        h = memory["first"].expand(-1, rows, -1)
        return {"h": h, "c": torch.zeros_like(h)}

    def projected(self, word_ids: Tensor) -> Tensor:
        """Return W_x x + b (B, T, 4H)."""
        return self.cell.project(WORD, ops.embedding(self.embedding, word_ids), bias=True)

    def advance(self, words: Tensor, state: State, memory: Memory) -> Moment:
        """Take one step."""
        h, c, _ = self.cell(words, state["h"], state["c"])
        return Moment(h, {"h": h, "c": c}, None)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); without relevance, torch's fused LSTM takes all steps at once."""
        if ops.in_relevance_mode():
            return super().hidden(features, word_ids)
        state = self.start(self.encode(features))
        return Hidden(self.cell.all_steps(self.embedding(word_ids), state["h"], state["c"]), None)


class AttentionLSTM(Recurrent):
    """An LSTM that reads the word and what the previous state attends to.

    A = conv1x1(x); h_0 = c_0 = mean of A; weights = softmax(<h, A_n> / sqrt(H)) with the state
    before the step; the cell reads [word, sum of weighted A_n].

    Parameters
    ----------
    forget_bias : float
        Of new weights; 0 as published.
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        embedding: int = 256,
        hidden: int = 512,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__(vocabulary_size, feature_size, embedding, hidden)
        self.projection = nn.Linear(feature_size, hidden)
        self.cell = SingleBiasLSTM([embedding, hidden], hidden)
        self.cell.remember(forget_bias)

    def project(self, features: Features) -> Tensor:
        """Return the projected visual features A (B, N, H)."""
        return linear(self.projection, features.cells)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return A and its mean (B, 1, H)."""
        memory = {"values": latent, "first": ops.mean(latent, features.valid).unsqueeze(1)}
        return memory if features.valid is None else {**memory, "valid": features.valid}

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the mean of A as h and as c, `rows` times."""
        first = memory["first"].expand(-1, rows, -1)
        return {"h": first, "c": first}

    def projected(self, word_ids: Tensor) -> Tensor:
        """Return W_x x + b (B, T, 4H)."""
        return self.cell.project(WORD, ops.embedding(self.embedding, word_ids), bias=True)

    def advance(self, words: Tensor, state: State, memory: Memory) -> Moment:
        """Attend, then take one step."""
        values = memory["values"]
        weights = attention_weights(state["h"], values, 1, memory.get("valid")).squeeze(-2)
        context = ops.attend(weights, values)
        h, c, _ = self.cell(words + self.cell.project(CONTEXT, context), state["h"], state["c"])
        return Moment(h, {"h": h, "c": c}, weights)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); without relevance, in as few products as there can be."""
        if ops.in_relevance_mode():
            return super().hidden(features, word_ids)
        memory = self.encode(features)
        values, valid = memory["values"], memory.get("valid")
        words = self.distinct(word_ids)
        columns = self.cell.weight_ih[:, self.cell.columns[CONTEXT]]
        multiply = SharedWeight(torch.cat([columns, self.cell.weight_hh], 1))
        scored, summed = SharedWeight(values), SharedWeight(values.mT)
        h = c = memory["first"]
        hs, maps = [], []
        for word in words.chunk(word_ids.shape[1], 1):
            scores = scored(h) / h.shape[-1] ** 0.5
            if valid is None:
                maps.append(scores.softmax(-1))
            else:
                maps.append(masked_softmax(scores, valid.unsqueeze(1)))
            i, f, g, o = (word + multiply(torch.cat([summed(maps[-1]), h], -1))).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            hs.append(h)
        return Hidden(torch.cat(hs, 1), torch.cat(maps, 1))

    def distinct(self, word_ids: Tensor) -> Tensor:
        """Return what `projected` does, with each word projected once however often it comes."""
        distinct, places = torch.unique(word_ids, return_inverse=True)
        columns = self.cell.weight_ih[:, self.cell.columns[WORD]]
        table = product(self.embedding(distinct), columns, self.cell.bias_ih)
        return functional.embedding(places, table)
