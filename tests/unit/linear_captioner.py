"""A captioner whose explanations are known exactly: every logit is a sum of contributions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capscope.data.vocabulary import Vocabulary
from capscope.explain.subject import Subject
from capscope.features.grid import GridExtractor
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step
from capscope.relevance import operations as ops

VOCABULARY = Vocabulary(("<pad>", "a", "b", "c", "<unk>", "<start>", "<end>"), 0, 5, 6, 4)
SIZE, GRID, CHANNELS = 8, (2, 2), 5


class LinearCaptioner(Captioner):
    """logit(w) at t = A[w] . (W mean of the cells + sum of the embedded inputs 0..t)."""

    attends = False

    def __init__(self, feature_size: int = CHANNELS, hidden: int = 6) -> None:
        super().__init__()
        self.vocabulary_size = len(VOCABULARY)
        self.projection = nn.Linear(feature_size, hidden, bias=False)
        self.embedding = nn.Embedding(self.vocabulary_size, hidden)
        self.words = nn.Linear(hidden, self.vocabulary_size)
        nn.init.zeros_(self.words.bias)

    def project(self, features: Features) -> Tensor:
        return ops.linear(self.projection, features.cells)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        return {"image": ops.mean(latent)}

    def start(self, memory: Memory, rows: int = 1) -> State:
        return {"sum": memory["image"].unsqueeze(1).repeat(1, rows, 1)}

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        total = state["sum"] + self.embedding(word_ids)
        return Step(self.readout(total).log_softmax(-1), {"sum": total}, None)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        memory = ops.border(self.encode(features))
        said = ops.embedding(self.embedding, word_ids).cumsum(1)
        return Hidden(memory["image"].unsqueeze(1) + said, None)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        if ids is None:
            return ops.linear(self.words, hidden)
        return ops.selected_linear(self.words, hidden, ids)


def linear_subject() -> Subject:
    """A linear captioner on a linear network with positive weights: LRP is exact everywhere."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, CHANNELS, 4, stride=4, bias=False)
    with torch.no_grad():
        convolution.weight.abs_()
    extractor = GridExtractor("linear", nn.Sequential(convolution), SIZE, layer="0", scale=1.7)
    return Subject(LinearCaptioner().eval(), VOCABULARY, extractor)
