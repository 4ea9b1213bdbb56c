"""Cross-entropy: every word of the references, given those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from capscope.decoding.sampling import argmax, drawn
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.training.batches import (
    CaptionBatch,
    Rows,
    epoch_batches,
    frame,
    image_batches,
    image_of_row,
)
from capscope.training.objectives import cross_entropy
from capscope.training.schedules import sampling_probability
from capscope.training.stages.stage import Corpus, Outcome, Stage

FIRST_OWN_WORD = 3
"""Input from which on whole references are fed the captioner's words; 0 is the start."""


def from_the_fourth_on(references: Tensor, steps: int) -> Tensor:
    """Return all inputs (B, `steps`) bool of some references (B,) bool, but for the first three."""
    later: Tensor = torch.arange(steps) >= FIRST_OWN_WORD
    return references.unsqueeze(1) & later


class CrossEntropy(Stage):
    """Teacher forcing, with scheduled sampling of probability ``scheduled_sampling``.

    By default references are shuffled and the loss is the mean over words. ``order: given`` takes
    the references as they come, in the same batches each epoch; ``last_batch: drop`` leaves those
    out that do not fill a batch; ``per: caption`` divides the loss by the number of references;
    ``label_smoothing`` and ``smoothing_mass`` are those of `word_loss`. ``scheduled_sampling`` is a
    probability, or the arguments of `sampling_probability`: of feeding a reference, from its fourth
    input on, the captioner's likeliest words (Sun et al. 2022), or with ``own_words: drawn`` of
    feeding any input behind the start a word drawn from what the captioner says (Bengio et al.
    2015). ``captions_per_image`` batches so many references of each image, which captioners that
    fold encode once.
    """

    unit = "caption"

    def __init__(self, captioner: Captioner, corpus: Corpus, settings: Mapping[str, Any]) -> None:
        super().__init__(captioner, corpus, settings)
        self._images = image_of_row(corpus.captions)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Take the probability of scheduled sampling, which may grow from epoch to epoch."""
        chosen = self.settings.get("scheduled_sampling", 0.0)
        self._samples = bool(chosen)
        if isinstance(chosen, Mapping):
            chosen = sampling_probability(epoch, **chosen)
        self._own_words = chosen

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[Rows]:
        """Return rows of references: of similar length, or as they come."""
        rows = self.corpus.rows
        count = self.settings.get("captions_per_image")
        if count:
            ids = self._images[rows]
            return image_batches(rows, ids, batch_size, count, seed=seed, epoch=epoch)
        if self.settings.get("order") == "given":
            batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        else:
            lengths = self.corpus.captions.lengths[rows]
            places = epoch_batches(lengths, batch_size, seed=seed, epoch=epoch)
            batches = [rows[place] for place in places]
        if self.settings.get("last_batch") != "drop":
            return batches
        whole = [batch for batch in batches if len(batch) == batch_size]
        if not whole:
            raise CapscopeError(
                f"last_batch: drop leaves nothing: {len(rows)} references do not fill a batch of "
                f"{batch_size}"
            )
        return whole

    def parts(self, batch: Rows, count: int) -> list[Rows]:
        """Divide a batch; references that share the features of their image stay together."""
        groups = batch.reshape(-1, self._folded())
        return [part.flatten() for part in super().parts(groups, count)]

    def read(self, batch: Rows) -> tuple[Features, CaptionBatch]:
        """Return the features of the references' images, and the references."""
        framed = frame(self.corpus.captions, batch, self.corpus.vocabulary)
        features = self.corpus.store.read(self._images[batch[:: self._folded()]])
        return features, framed.to(features.cells.device)

    def _folded(self) -> int:
        """Return how many references that follow each other share the features of their image."""
        if self.captioner.folds and not self._own_words:
            return int(self.settings.get("captions_per_image") or 1)
        return 1

    @property
    def _drawn(self) -> bool:
        return bool(self.settings.get("own_words") == "drawn")

    def own_words(self, rows: int, steps: int) -> Tensor:
        """Draw which inputs (rows, steps) bool are to be the captioner's own words."""
        if self._drawn:
            chosen: Tensor = torch.rand(rows, steps) < self._own_words
            return chosen & (torch.arange(steps) > 0)
        return from_the_fourth_on(torch.rand(rows) < self._own_words, steps)

    def step(self, batch: Rows) -> Outcome:
        """Return -log p of the words of the batch, a mean over words or a sum a reference."""
        features, framed = self.read(batch)
        per = self.settings.get("per", "word")
        loss = cross_entropy(
            self.captioner,
            features,
            framed,
            self.own_words(*framed.inputs.shape).to(framed.inputs.device),
            per,
            self.settings.get("label_smoothing", 0.0),
            self.settings.get("smoothing_mass") == "published",
            drawn() if self._drawn else argmax,
        )
        measures = {"scheduled_sampling": self._own_words} if self._samples else {}
        weight = int(framed.valid.sum()) if per == "word" else len(batch)
        return Outcome(loss, weight, measures, weight)
