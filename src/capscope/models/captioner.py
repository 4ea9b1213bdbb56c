"""The captioner protocol: all that decoders, objectives, explainers and benchmarks rely on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from capscope.features.visual import Features

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


class Hidden(NamedTuple):
    """Teacher-forced pass over T input words."""

    values: Tensor
    """(B, T, H) what `Captioner.readout` turns into logits."""
    attention: Tensor | None
    """(B, T, N) or (B, T, heads, N) weights over visual features, or None."""


class Captioner(nn.Module, ABC):
    """A model that says one word after the other about visual features.

    `features` -> `project` -> latent (B, N, P) -> `memory` -> Memory. The two parts let
    explainers perturb the latent features. `step` and `hidden` are two ways through the same
    equations: `readout(hidden(f, ids).values)` equals the logits behind successive `step`s.
    """

    vocabulary_size: int

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


def select_rows(state: State, rows: Tensor) -> State:
    """Re-order the K rows of each image: `rows` (B, K') indexes the row axis of each tensor."""
    batch = rows.new_tensor(range(rows.shape[0])).unsqueeze(1)
    return {name: tensor[batch, rows] for name, tensor in state.items()}
