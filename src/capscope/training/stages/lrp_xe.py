"""Cross-entropy with LRP-inference weights (Sun et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from capscope.data.vocabulary import Vocabulary
from capscope.data.wordlists import stop_words
from capscope.models.captioner import Captioner, Summands, with_summands
from capscope.relevance.reweighting import reweight
from capscope.training.batches import Rows
from capscope.training.stages.stage import Corpus, Outcome
from capscope.training.stages.xe import CrossEntropy


def neutral_words(vocabulary: Vocabulary) -> Tensor:
    """Return (V,) bool: the words whose relevance weights nothing, stop words and special ones."""
    listed = stop_words()
    return torch.tensor(
        [
            word_id in vocabulary.special_ids or word in listed
            for word_id, word in enumerate(vocabulary.words)
        ]
    )


class RelevanceCrossEntropy(CrossEntropy):
    """XE of the captioner as it is, plus ``weight`` times XE of the re-weighted predictor.

    The inputs of the predictor are multiplied by their relevance for the word that the captioner
    would say itself, in [0, 2]; gradient flows through them, not through the weights.
    """

    def __init__(self, captioner: Captioner, corpus: Corpus, settings: Mapping[str, Any]) -> None:
        super().__init__(captioner, corpus, settings)
        self._sum_captioner = with_summands(captioner)
        self._neutral = neutral_words(corpus.vocabulary).to(captioner.device)

    @property
    def signature(self) -> dict[str, Any]:
        """Return the settings, and how many words are neutral."""
        return {**super().signature, "neutral_words": int(self._neutral.sum())}

    def step(self, batch: Rows) -> Outcome:
        """Return the sum of both cross-entropies over the words of the batch."""
        features, framed = self.read(batch)
        summands = self._sum_captioner.summands(features, framed.inputs)
        spoken = Summands(*(part[framed.valid].unsqueeze(0) for part in summands))
        found = reweight(self._sum_captioner, spoken, self._neutral)
        targets = framed.targets[framed.valid]
        plain = functional.cross_entropy(found.logits.squeeze(0), targets)
        weighted = functional.cross_entropy(found.weighted.squeeze(0), targets)
        measures = {"loss_plain": plain.item(), "loss_weighted": weighted.item()}
        loss, words = plain + self.settings["weight"] * weighted, len(targets)
        return Outcome(loss, words, measures, words)
