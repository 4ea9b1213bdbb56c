"""Self-critical training of the re-weighted predictor (LRP-SCST, Sun et al. 2022)."""

from __future__ import annotations

from typing import Any

from capscope.models.captioner import Captioner, with_summands
from capscope.training.reweighted import ReweightedCaptioner
from capscope.training.stages.lrp_xe import neutral_words
from capscope.training.stages.scst import SelfCritical


class RelevanceSelfCritical(SelfCritical):
    """Captions are drawn from the re-weighted captioner; the greedy baseline is the ordinary's."""

    def make_policy(self) -> Captioner:
        """Return the captioner with LRP-inference weights."""
        neutral = neutral_words(self.corpus.vocabulary).to(self.captioner.device)
        return ReweightedCaptioner(with_summands(self.captioner), neutral)

    @property
    def signature(self) -> dict[str, Any]:
        """Return what SCST returns, and how many words are neutral."""
        neutral = neutral_words(self.corpus.vocabulary)
        return {**super().signature, "neutral_words": int(neutral.sum())}
