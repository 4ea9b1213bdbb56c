"""Guided Grad-CAM."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from capscope.explain.explanation import Explanation
from capscope.explain.gradcam import activation_maps, normalised
from capscope.explain.guided_backprop import GuidedBackprop
from capscope.explain.pixels import enlarged
from capscope.features.visual import Features
from capscope.relevance.backward import word_multipliers
from capscope.relevance.rules import GRADIENT


class GuidedGradCAM(GuidedBackprop):
    """The guided derivative times the enlarged Grad-CAM of the word.

    R. Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2. With parity, Grad-CAM is taken of the
    guided derivative instead of the derivative, and preceding words get their gradient, of which
    the method says nothing.
    """

    name: ClassVar[str] = "guided_gradcam"
    title: ClassVar[str] = "Guided Grad-CAM"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        subject = self.subject
        guided = self.multipliers(features, word_ids)
        if self.parity:
            maps = normalised(activation_maps(subject, features, guided.cells.sum(2)))
        else:
            rules = self.rules_of(GRADIENT)
            plain = word_multipliers(subject.captioner, features, word_ids, rules, summed=True)
            maps = activation_maps(subject, features, plain.cells.squeeze(2))
        pixels = None
        if images is not None:
            size = images.shape[-1]
            pixels = self.to_pixels(images, guided.cells).sum(2)
            pixels = pixels * enlarged(subject, maps, size, parity=self.parity)
        grid = subject.activations(guided.cells).sum(-1) * maps
        if not self.parity:
            return Explanation(grid, pixels=pixels).within(lengths)
        return Explanation(grid, guided.words.sum(-1), pixels).as_published().within(lengths)
