"""A captioner whose predictor is weighted by the relevance of what it reads."""

from __future__ import annotations

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.models.captioner import (
    Captioner,
    Hidden,
    Memory,
    State,
    Step,
    SumCaptioner,
    Summands,
)
from capscope.relevance.reweighting import reweight


class ReweightedCaptioner(Captioner):
    """Says what a captioner says once LRP-inference weights multiply its predictor's inputs.

    Each step is weighted by itself: state, attention and embeddings are the captioner's own.
    All decoders and objectives work on it as on any captioner; the parameters are shared.

    Parameters
    ----------
    captioner : SumCaptioner
    neutral : Tensor (V,) bool
        Words whose relevance weights nothing.
    """

    def __init__(self, captioner: SumCaptioner, neutral: Tensor) -> None:
        super().__init__()
        self.captioner, self.neutral = captioner, neutral
        self.vocabulary_size = captioner.vocabulary_size

    def project(self, features: Features) -> Tensor:
        """Return the captioner's latent visual features."""
        return self.captioner.project(features)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the captioner's memory."""
        return self.captioner.memory(latent, features)

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the captioner's first state."""
        return self.captioner.start(memory, rows)

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is not given."""
        summands, state = self.captioner.step_summands(word_ids, state, memory)
        return Step(self.readout(torch.cat(summands, -1)).log_softmax(-1), state, None)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values (B, T, 2 H) are both summands, one behind the other."""
        return Hidden(torch.cat(self.captioner.summands(features, word_ids), -1), None)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return the re-weighted logits of summands (B, T, 2 H), or only those of `ids`."""
        summands = Summands(*hidden.chunk(2, -1))
        logits = reweight(self.captioner, summands, self.neutral).weighted
        return logits if ids is None else logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
