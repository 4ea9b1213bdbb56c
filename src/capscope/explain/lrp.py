"""Layer-wise relevance propagation, from a word's logit to cells, preceding words and pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import relevance_to_pixels
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.relevance import rules
from capscope.relevance.backward import WordRelevance, word_relevance


class LRP(Explainer):
    """LRP with the epsilon rule in the decoder and alpha-beta (1, 0) in the image network.

    Gates and attention weights are constants (Arras et al. 2017; Sun et al. 2022).
    """

    name: ClassVar[str] = "lrp"
    title: ClassVar[str] = "LRP"

    def explained(self) -> Captioner:
        """Return the captioner whose logits are explained."""
        return self.subject.captioner

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        chosen = replace(rules.LRP, epsilon=self.epsilon)
        found = word_relevance(self.explained(), features, word_ids, chosen)
        return propagated(self, images, found).within(lengths)


def propagated(explainer: Explainer, images: Tensor | None, found: WordRelevance) -> Explanation:
    """Carry the relevance of cells on to the pixels by LRP, and keep account of it."""
    grid = found.features.sum(-1)
    account = {"start": found.logits, "grid": grid.sum(-1), "words": found.words.sum(-1)}
    pixels = None
    if images is not None:
        account["network"] = explainer.subject.network.to_maps(found.features).sum((-3, -2, -1))
        pixels = relevance_to_pixels(explainer.subject, images, found.features)
        account["pixels"] = pixels.sum((-2, -1))
    return Explanation(grid, found.words, pixels, account)
