"""Raw attention weights as an explanation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import relevance_to_pixels
from capscope.explain.raster import enlarge
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
        weights = self.weights(features, word_ids)
        pixels = None
        if images is not None:
            attended = weights.unsqueeze(-1) * features.cells.unsqueeze(1)
            pixels = relevance_to_pixels(self.subject, images, attended)
        return Explanation(weights, pixels=pixels).within(lengths)

    def weights(self, features: Features, word_ids: Tensor) -> Tensor:
        """Return the attention (B, T, N) with which each word was said."""
        with torch.no_grad():
            weights = self.subject.captioner.hidden(features, word_ids[:, :-1]).attention
        if weights is None:
            raise CapscopeError(
                f"{type(self.subject.captioner).__name__} has no attention over visual features: "
                "choose another explainer"
            )
        return weights.mean(2) if weights.dim() == 4 else weights


class EnlargedAttention(Attention):
    """Attention weights, enlarged to the image: how attention is shown in most papers."""

    name: ClassVar[str] = "attention_enlarged"
    title: ClassVar[str] = "attention, enlarged"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Return the attention weights of all words; see `Explainer.explain`."""
        weights = self.weights(features, word_ids)
        pixels = None
        if images is not None:
            maps = weights.unflatten(2, self.subject.network.grid)  # type: ignore[no-untyped-call]
            pixels = enlarge(maps, images.shape[-1])
        return Explanation(weights, pixels=pixels).within(lengths)
