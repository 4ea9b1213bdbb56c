"""Attention weights as an explanation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import enlarged, relevance_to_pixels
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.models.captioner import Hidden


class Attention(Explainer):
    """Raw attention weights, averaged over heads or of one; pixels by bilinear enlarging."""

    name: ClassVar[str] = "attention"
    title: ClassVar[str] = "attention"
    sign: ClassVar[Literal["signed", "positive"]] = "positive"
    enlarges: ClassVar[bool] = True

    @classmethod
    def unfit(cls, subject: Subject) -> str | None:
        """Return the reason if the captioner has no attention."""
        if subject.captioner.attends:
            return None
        return f"{type(subject.captioner).__name__} has no attention over visual features"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Return the attention weights of all words; see `Explainer.explain`."""
        with torch.no_grad():
            hidden = self.subject.captioner.hidden(features, word_ids[:, :-1])
        weights = self.weights(hidden)
        pixels = None if images is None else self.to_pixels(images, features, weights)
        return Explanation(weights, pixels=pixels).within(lengths)

    def weights(self, hidden: Hidden) -> Tensor:
        """Return the weights (B, T, N) of a teacher-forced pass.

        Raises
        ------
        CapscopeError
            If the captioner has no attention, or not the head that was asked for.
        """
        weights, captioner = hidden.attention, type(self.subject.captioner).__name__
        if weights is None:
            raise CapscopeError(f"{self.unfit(self.subject)}: choose another explainer")
        if weights.dim() == 3:
            weights = weights.unsqueeze(2)
        if self.head is None:
            return weights.mean(2)
        if not 0 <= self.head < weights.shape[2]:
            raise CapscopeError(
                f"head {self.head} does not exist: {captioner} has {weights.shape[2]} of them, "
                "counted from 0"
            )
        return weights[:, :, self.head]

    def to_pixels(self, images: Tensor, features: Features, weights: Tensor) -> Tensor:
        """Return maps (B, T, S, S) of attention weights (B, T, N) over images (B, 3, S, S)."""
        return enlarged(self.subject, weights, images.shape[-1], parity=self.parity)


class AttentionThenLRP(Attention):
    """Attention weights; pixels by carrying attention x features through the network by LRP.

    Raw attention ends at the grid, and finer maps point better whatever they mean: this variant
    has the resolution of LRP.
    """

    name: ClassVar[str] = "attention_lrp"
    title: ClassVar[str] = "attention, then LRP"
    enlarges: ClassVar[bool] = False

    def to_pixels(self, images: Tensor, features: Features, weights: Tensor) -> Tensor:
        """Return maps (B, T, S, S) of attended features."""
        attended = weights.unsqueeze(-1) * features.cells.unsqueeze(1)
        return relevance_to_pixels(self.subject, images, attended)
