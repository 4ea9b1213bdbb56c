"""Cross-entropy: every word of the references, given those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.training.batches import CaptionBatch, Rows, epoch_batches, frame, image_of_row
from capscope.training.objectives import cross_entropy
from capscope.training.stages.stage import Corpus, Outcome, Stage


class CrossEntropy(Stage):
    """Teacher forcing, with scheduled sampling of probability ``scheduled_sampling``."""

    unit = "caption"

    def __init__(self, captioner: Captioner, corpus: Corpus, settings: Mapping[str, Any]) -> None:
        super().__init__(captioner, corpus, settings)
        self._images = image_of_row(corpus.captions)

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[Rows]:
        """Return rows of references of similar length."""
        rows = self.corpus.rows
        places = epoch_batches(
            self.corpus.captions.lengths[rows], batch_size, seed=seed, epoch=epoch
        )
        return [rows[place] for place in places]

    def read(self, batch: Rows) -> tuple[Features, CaptionBatch]:
        """Return the features of the references' images, and the references."""
        framed = frame(self.corpus.captions, batch, self.corpus.vocabulary)
        return self.corpus.store.read(self._images[batch]), framed

    def step(self, batch: Rows) -> Outcome:
        """Return the mean of -log p over the words of the batch."""
        features, framed = self.read(batch)
        own_words = torch.rand(len(batch)) < self.settings["scheduled_sampling"]
        loss = cross_entropy(self.captioner, features, framed, own_words)
        return Outcome(loss, int(framed.valid.sum()), {})
