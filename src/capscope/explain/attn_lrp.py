"""LRP that goes through attention weights too."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.lrp import propagated
from capscope.features.visual import Features
from capscope.relevance import rules
from capscope.relevance.backward import word_relevance


class AttnLRP(Explainer):
    """LRP whose products of attention share relevance between their factors.

    Query and key get half each of what their scores get, weight and value half each of what an
    attended sum gets; the softmax passes its derivative, and what is left is absorbed. R. Achtibat
    et al., "AttnLRP: attention-aware layer-wise relevance propagation", ICML 2024.
    """

    name: ClassVar[str] = "attn_lrp"
    title: ClassVar[str] = "AttnLRP"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        chosen = self.rules_of(rules.ATTN_LRP, rules.ATTN_LRP)
        found = word_relevance(
            self.subject.captioner, features, word_ids, chosen, channels=images is not None
        )
        return propagated(self, images, found).within(lengths)
