"""Grad-CAM."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from capscope.explain.explanation import Explanation
from capscope.explain.gradient import Gradient
from capscope.explain.pixels import enlarged
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.relevance.backward import word_multipliers


class GradCAM(Gradient):
    """Feature channels weighted by their mean gradient, rectified; pixels by bilinear enlarging.

    R. Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2. With parity the largest value of
    a map is 1, and preceding words get their gradient, of which the method says nothing.
    """

    name: ClassVar[str] = "gradcam"
    title: ClassVar[str] = "Grad-CAM"
    sign: ClassVar[Literal["signed", "positive"]] = "positive"
    enlarges: ClassVar[bool] = True

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Return the class activation maps of all words; see `Explainer.explain`."""
        subject, words = self.subject, None
        if self.parity:
            found = self.multipliers(features, word_ids)
            grid = normalised(activation_maps(subject, features, found.cells.sum(2)))
            words = found.words.sum(-1)
        else:
            rules = self.rules_of(self.rules)
            found = word_multipliers(subject.captioner, features, word_ids, rules, summed=True)
            grid = activation_maps(subject, features, found.cells.squeeze(2))
        pixels = None
        if images is not None:
            pixels = enlarged(subject, grid, images.shape[-1], parity=self.parity)
        explanation = Explanation(grid, words, pixels)
        return (explanation.as_published() if self.parity else explanation).within(lengths)


def activation_maps(subject: Subject, features: Features, gradient: Tensor) -> Tensor:
    """Return maps (B, T, N) of cells, weighted by their gradient (B, T, D) summed over cells."""
    cells = subject.activations(features.cells)
    count: Tensor | int = cells.shape[1]
    if features.valid is not None:
        count = features.valid.sum(1).clamp(min=1).reshape(-1, 1, 1)
    weights = subject.activations(gradient) / count
    return (weights @ cells.transpose(1, 2)).clamp(min=0)


def normalised(maps: Tensor) -> Tensor:
    """Return maps (B, T, N) over their largest value plus 1e-6 (published)."""
    return maps / (maps.amax(-1, keepdim=True) + 1e-6)
