"""Raw attention weights as an explanation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import relevance_to_pixels
from capscope.features.visual import Features


class Attention(Explainer):
    """Attention weights over visual features, averaged over heads.

    Its pixel map is attention x features carried through the image network by LRP, so that it can
    be compared with other methods at their resolution.
    """

    name: ClassVar[str] = "attention"
    title: ClassVar[str] = "attention"
    sign: ClassVar[Literal["signed", "positive"]] = "positive"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Return the attention weights of all words; see `Explainer.explain`."""
        with torch.no_grad():
            weights = self.subject.captioner.hidden(features, word_ids[:, :-1]).attention
        if weights is None:
            raise CapscopeError(
                f"{type(self.subject.captioner).__name__} has no attention over visual features: "
                "choose another explainer"
            )
        if weights.dim() == 4:
            weights = weights.mean(2)
        pixels = None
        if images is not None:
            attended = weights.unsqueeze(-1) * features.cells.unsqueeze(1)
            pixels = relevance_to_pixels(self.subject, images, attended)
        return Explanation(weights, pixels=pixels).within(lengths)
