"""Attention rollout."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from capscope.explain.attention import Attention
from capscope.explain.explanation import Explanation
from capscope.features.visual import Features
from capscope.models.captioner import AttentionLayers


class AttentionRollout(Attention):
    """Attention weights multiplied over layers, where each layer also passes its input on.

    A captioner with one layer of attention has nothing to multiply: its rollout is raw attention.
    S. Abnar, W. Zuidema, "Quantifying attention flow in transformers", ACL 2020, equation 1.
    """

    name: ClassVar[str] = "attention_rollout"
    title: ClassVar[str] = "attention rollout"
    sign: ClassVar[Literal["signed", "positive"]] = "positive"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Return the rollout of all words; see `Explainer.explain`."""
        with torch.no_grad():
            hidden = self.subject.captioner.hidden(features, word_ids[:, :-1])
        words = None
        if hidden.layers is None:
            grid = self.weights(hidden)
        else:
            grid, words = rollout(hidden.layers)
        pixels = None if images is None else self.to_pixels(images, features, grid)
        return Explanation(grid, words, pixels).within(lengths)


def rollout(layers: AttentionLayers) -> tuple[Tensor, Tensor]:
    """Follow attention from the last decoder layer down to visual features and input words.

    With attention A averaged over heads, a layer that adds its input passes on (A + 1) / 2: half of
    what a position holds is its own, half what it attends to. In a decoder layer, self-attention
    mixes what positions hold of words and features; attention to the encoder then brings features.

    Returns
    -------
    grid : Tensor (B, T, N)
    words : Tensor (B, T, T)
        Shares of each position: together they add up to 1.
    """
    batch, _, steps, cells = layers.cross[0].shape
    seen = torch.eye(cells).expand(batch, cells, cells)
    for attention in layers.encoder:
        seen = (attention.mean(1) @ seen + seen) / 2
    words = torch.eye(steps).expand(batch, steps, steps)
    grid = torch.zeros(batch, steps, cells)
    for attention, cross in zip(layers.decoder, layers.cross, strict=True):
        mixed = attention.mean(1)
        words, grid = (mixed @ words + words) / 2, (mixed @ grid + grid) / 2
        words, grid = words / 2, (cross.mean(1) @ seen + grid) / 2
    return grid, words
