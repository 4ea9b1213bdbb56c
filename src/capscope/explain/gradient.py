"""The gradient of a word's logit."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import gradient_to_pixels
from capscope.features.visual import Features
from capscope.relevance import image_rules, rules
from capscope.relevance.backward import Multipliers, word_multipliers
from capscope.relevance.image_rules import ImageRules
from capscope.relevance.rules import GRADIENT_AS_PUBLISHED, Rules


class Gradient(Explainer):
    """The derivative of the logit, summed over channels, embedding and colours, sign kept.

    K. Simonyan et al., "Deep inside convolutional networks", ICLR workshop 2014; they take the
    largest absolute value over colours. With parity, attention weights and the sentinel gate are
    constants and rectifiers of projections are ignored.

    Attributes
    ----------
    rules, image_rules
        What carries the derivative back through the decoder, and through the image network.
    """

    name: ClassVar[str] = "gradient"
    title: ClassVar[str] = "gradient"
    rules: ClassVar[Rules] = rules.GRADIENT
    image_rules: ClassVar[ImageRules] = image_rules.GRADIENT

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        found = self.multipliers(features, word_ids)
        pixels = None if images is None else self.to_pixels(images, found.cells).sum(2)
        grid = self.subject.activations(found.cells).sum(-1)
        explanation = Explanation(grid, found.words.sum(-1), pixels)
        return (explanation.as_published() if self.parity else explanation).within(lengths)

    def multipliers(self, features: Features, word_ids: Tensor) -> Multipliers:
        """Return the derivative at visual features (B, T, N, D) and embedded words."""
        chosen = self.rules_of(self.rules, GRADIENT_AS_PUBLISHED)
        return word_multipliers(self.subject.captioner, features, word_ids, chosen)

    def to_pixels(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Return the derivative at the pixels (B, T, 3, S, S)."""
        return gradient_to_pixels(self.subject, images, gradient, self.image_rules)
