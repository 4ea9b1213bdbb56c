"""Gradient x input, at the grid and on through the image network."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.lrp import propagated
from capscope.explain.pixels import gradient_to_pixels
from capscope.features.visual import Features
from capscope.relevance.backward import word_multipliers, word_relevance
from capscope.relevance.rules import GRADIENT, GRADIENT_X_INPUT


class GradientXInput(Explainer):
    """Gradient of the logit times the features, times embedded words, times the pixels.

    A. Shrikumar et al., "Not just a black box", 2016.
    """

    name: ClassVar[str] = "gradient_x_input"
    title: ClassVar[str] = "gradient x input"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        rules = self.rules_of(GRADIENT)
        found = word_multipliers(self.subject.captioner, features, word_ids, rules)
        grid = (found.cells * features.cells.unsqueeze(1)).sum(-1)
        words = (found.words * found.embedded.unsqueeze(1)).sum(-1)
        pixels = None
        if images is not None:
            gradient = gradient_to_pixels(self.subject, images, found.cells)
            pixels = (gradient * images.unsqueeze(1)).sum(2)
        return Explanation(grid, words, pixels).within(lengths)


class GradientThenLRP(Explainer):
    """Gradient x input at the grid, carried through the image network by LRP."""

    name: ClassVar[str] = "gradient_lrp"
    title: ClassVar[str] = "gradient x input, then LRP"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        rules = self.rules_of(GRADIENT_X_INPUT)
        found = word_relevance(self.subject.captioner, features, word_ids, rules)
        return propagated(self, images, found).within(lengths)
