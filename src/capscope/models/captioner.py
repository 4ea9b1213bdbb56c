"""The captioner protocol: all that decoders, objectives, explainers and benchmarks rely on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.relevance import operations as ops

Memory = dict[str, Tensor]
"""The encoded images: batch-first tensors (B, ...), one row per image; never re-ordered."""
State = dict[str, Tensor]
"""The decoder's state: tensors (B, K, ...), K rows (beams, samples) per image."""


class Step(NamedTuple):
    """One decoding step of K rows of each of B images."""

    log_probs: Tensor
    """(B, K, V) log-probabilities of the next word."""
    state: State
    attention: Tensor | None
    """(B, K, N) or (B, K, heads, N) weights over visual features, or None."""


class AttentionLayers(NamedTuple):
    """Attention weights of a captioner that stacks layers of it, from the first to the last.

    Every layer adds its input to what it attends to.
    """

    encoder: tuple[Tensor, ...]
    """(B, heads, N, N) of visual features among themselves."""
    decoder: tuple[Tensor, ...]
    """(B, heads, T, T) of input words among themselves."""
    cross: tuple[Tensor, ...]
    """(B, heads, T, N) of input words over encoded features, one for each of `decoder`."""


class Hidden(NamedTuple):
    """Teacher-forced pass over T input words."""

    values: Tensor
    """(B, T, H) what `Captioner.readout` turns into logits."""
    attention: Tensor | None
    """(B, T, N) or (B, T, heads, N) weights over visual features, or None."""
    layers: AttentionLayers | None = None
    """All weights, of captioners with more than one layer of attention."""


class Summands(NamedTuple):
    """The two vectors whose sum the output layer reads."""

    hidden: Tensor
    """(B, T, H) state of the last LSTM."""
    context: Tensor
    """(B, T, H) what attention brings."""


class Captioner(nn.Module, ABC):
    """A model that says one word after the other about visual features.

    `features` -> `project` -> latent (B, N, P) -> `memory` -> Memory. The two parts let
    explainers perturb the latent features. `step` and `hidden` are two ways through the same
    equations: `readout(hidden(f, ids).values)` equals the logits behind successive steps.
    """

    vocabulary_size: int
    attends: ClassVar[bool] = True
    """Whether it has attention over visual features."""
    folds: ClassVar[bool] = False
    """Whether `hidden` takes K captions of each image, (B K, T), and encodes an image once."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    by_kind: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Constructor arguments that follow from the kind of visual features (grid, regions)."""

    @abstractmethod
    def project(self, features: Features) -> Tensor:
        """Return the latent visual features (B, N, P)."""

    @abstractmethod
    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return all that decoding needs of the images; `features` gives geometry and masks."""

    def encode(self, features: Features) -> Memory:
        """Return the memory of a batch of images."""
        return self.memory(self.project(features), features)

    @abstractmethod
    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the state before the first word, `rows` rows per image."""

    @abstractmethod
    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); return log-probabilities, the next state and attention."""

    @abstractmethod
    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T), teacher forcing; position t predicts word t + 1."""

    @abstractmethod
    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V), or only those of `ids` (B, T) as (B, T)."""


class SumCaptioner(Captioner):
    """A captioner whose output layer reads a sum: logits = words(dropout(hidden + context)).

    The relevance of a predicted word splits into that of the two summands, which is what
    LRP-inference fine-tuning weights them with (`capscope.relevance.reweighting`).
    """

    words: nn.Linear
    dropout: nn.Dropout
    hidden_size: int
    parity: bool
    """As published: among other things, padded regions take part."""

    @abstractmethod
    def summands(self, features: Features, word_ids: Tensor) -> Summands:
        """Feed word ids (B, T), teacher forcing; return both summands at each position."""

    @abstractmethod
    def step_summands(
        self, word_ids: Tensor, state: State, memory: Memory
    ) -> tuple[Summands, State]:
        """Feed word ids (B, K); return both summands (B, K, H) and the next state."""

    def predict(self, total: Tensor) -> Tensor:
        """Return logits (B, T, V) of sums (B, T, H) of the (weighted) summands."""
        return self.readout(self.dropout(total))

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits, or only those of `ids`."""
        if ids is None:
            return ops.linear(self.words, hidden)
        return ops.selected_linear(self.words, hidden, ids)


def with_summands(captioner: Captioner) -> SumCaptioner:
    """Return the captioner; a `CapscopeError` if its output layer does not read a sum."""
    if not isinstance(captioner, SumCaptioner):
        raise CapscopeError(
            f"{type(captioner).__name__} does not add a hidden state and a context before its "
            "output layer, so relevance cannot weight them: the stages lrp_xe and lrp_scst are "
            "for captioners that do (gridtd, adaptive, aoa)"
        )
    return captioner


def select_rows(state: State, rows: Tensor) -> State:
    """Re-order the K rows of each image: `rows` (B, K') indexes the row axis of each tensor."""
    first = torch.arange(len(rows), device=rows.device).unsqueeze(1)
    found = {}
    for name, tensor in state.items():
        places = (rows + first * tensor.shape[1]).flatten()
        chosen = tensor.flatten(0, 1).index_select(0, places)
        found[name] = chosen.view(*rows.shape, *tensor.shape[2:])
    return found
