"""Grad-CAM."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.raster import enlarge
from capscope.features.visual import Features
from capscope.relevance.backward import word_relevance
from capscope.relevance.rules import GRADIENT


class GradCAM(Explainer):
    """Feature channels weighted by their mean gradient, rectified; pixels by bilinear enlarging.

    R. Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2.
    """

    name: ClassVar[str] = "gradcam"
    title: ClassVar[str] = "Grad-CAM"
    sign: ClassVar[Literal["signed", "positive"]] = "positive"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Return the class activation maps of all words; see `Explainer.explain`."""
        found = word_relevance(self.subject.captioner, features, word_ids, GRADIENT)
        cells = self.subject.activations(features.cells)
        weights = self.subject.activations(found.features).mean(2)
        grid = (weights @ cells.transpose(1, 2)).clamp(min=0)
        pixels = None
        if images is not None:
            pixels = enlarge(
                grid.reshape(*grid.shape[:2], *self.subject.network.grid), images.shape[-1]
            )
        return Explanation(grid, pixels=pixels).within(lengths)
