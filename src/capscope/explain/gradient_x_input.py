"""Gradient x input, at the grid and on through the image network."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.lrp import propagated
from capscope.explain.pixels import gradient_to_pixels
from capscope.features.visual import Features
from capscope.relevance.backward import word_relevance
from capscope.relevance.rules import GRADIENT, GRADIENT_X_INPUT


class GradientXInput(Explainer):
    """Gradient of the logit times the features, times embedded words, times the pixels."""

    name: ClassVar[str] = "gradient_x_input"
    title: ClassVar[str] = "gradient x input"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        found = word_relevance(self.subject.captioner, features, word_ids, GRADIENT_X_INPUT)
        pixels = None
        if images is not None:
            gradient = word_relevance(self.subject.captioner, features, word_ids, GRADIENT)
            pixels = gradient_to_pixels(self.subject, images, gradient.features)
        return Explanation(found.features.sum(-1), found.words, pixels).within(lengths)


class GradientThenLRP(Explainer):
    """Gradient x input at the grid, carried through the image network by LRP."""

    name: ClassVar[str] = "gradient_lrp"
    title: ClassVar[str] = "gradient x input, then LRP"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        found = word_relevance(self.subject.captioner, features, word_ids, GRADIENT_X_INPUT)
        return propagated(self, images, found).within(lengths)
