"""Attention weights as an explanation."""

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
    """Raw attention weights, averaged over heads; pixels by bilinear enlarging."""

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
        pixels = None if images is None else self.to_pixels(images, features, weights)
        return Explanation(weights, pixels=pixels).within(lengths)

    def to_pixels(self, images: Tensor, features: Features, weights: Tensor) -> Tensor:
        """Return maps (B, T, S, S) of attention weights (B, T, N) over images (B, 3, S, S)."""
        maps = weights.reshape(*weights.shape[:2], *self.subject.network.grid)
        return enlarge(maps, images.shape[-1])


class AttentionThenLRP(Attention):
    """Attention weights; pixels by carrying attention x features through the network by LRP.

    Raw attention ends at the grid, and finer maps point better whatever they mean: this variant
    has the resolution of LRP.
    """

    name: ClassVar[str] = "attention_lrp"
    title: ClassVar[str] = "attention, then LRP"

    def to_pixels(self, images: Tensor, features: Features, weights: Tensor) -> Tensor:
        """Return maps (B, T, S, S) of attended features."""
        attended = weights.unsqueeze(-1) * features.cells.unsqueeze(1)
        return relevance_to_pixels(self.subject, images, attended)
