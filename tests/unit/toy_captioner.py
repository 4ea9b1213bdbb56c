"""A captioner that fits one screen, for tests of everything that works on any captioner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step


class ToyCaptioner(Captioner):
    """h' = tanh(E[w] + U h + A m), m the mean of the projected cells; `sharpness` scales logits."""

    def __init__(
        self, vocabulary_size: int, feature_size: int, hidden: int = 8, sharpness: float = 1.0
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.sharpness = sharpness
        self.projection = nn.Linear(feature_size, hidden)
        self.embedding = nn.Embedding(vocabulary_size, hidden)
        self.recurrent = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, vocabulary_size)
        self.dropout = nn.Dropout(0.2)

    def project(self, features: Features) -> Tensor:
        return self.projection(features.cells)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        return {"mean": latent.mean(1)}

    def start(self, memory: Memory, rows: int = 1) -> State:
        mean = memory["mean"]
        return {"h": mean.new_zeros(mean.shape[0], rows, mean.shape[1])}

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        h = self._next(self.embedding(word_ids), state["h"], memory["mean"].unsqueeze(1))
        return Step(self.readout(h).log_softmax(-1), {"h": h}, None)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        mean = self.encode(features)["mean"]
        h = torch.zeros_like(mean)
        values = []
        for embedded in self.embedding(word_ids).unbind(1):
            h = self._next(embedded, h, mean)
            values.append(h)
        return Hidden(torch.stack(values, 1), None)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        logits = self.output(self.dropout(hidden)) * self.sharpness
        return logits if ids is None else logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)

    def _next(self, embedded: Tensor, h: Tensor, mean: Tensor) -> Tensor:
        return torch.tanh(embedded + self.recurrent(h) + mean)


def toy(
    seed: int, vocabulary_size: int = 7, images: int = 3, sharpness: float = 3.0
) -> tuple[ToyCaptioner, Features]:
    """Return a captioner with random weights in float64, and random images."""
    torch.manual_seed(seed)
    captioner = ToyCaptioner(vocabulary_size, 5, sharpness=sharpness).double().eval()
    return captioner, Features(torch.randn(images, 4, 5, dtype=torch.float64) * 2)
