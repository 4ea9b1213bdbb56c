"""LRP of DIFNet by alpha-beta rules, from a word to cells, segments and preceding words."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import relevance_to_pixels
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.models.base import BaseTransformer
from capscope.relevance import image_rules
from capscope.relevance.alpha_beta import AlphaBeta, Over
from capscope.relevance.recursion_difnet import DIFNetLRP


class AlphaBetaLRP(Explainer):
    """LRP in which attention weights get relevance, too, and sums share it out by their totals.

    Relevance of a word starts with 1. Segments lie on the cells: a cell's relevance is that of both
    flows. With parity (Wu et al. 2022), the word is the captioner's most probable one, relevance
    stops at the encoder's output, one place a cell, that of words is absolute, and sums take the
    whole batch together.
    """

    name: ClassVar[str] = "alpha_beta_lrp"
    title: ClassVar[str] = "Alpha-beta LRP"

    @classmethod
    def unfit(cls, subject: Subject) -> str | None:
        """Say which captioners it is for."""
        if isinstance(subject.captioner, BaseTransformer):
            return None
        return "its rules are written for the captioners base and difnet"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        captioner = self.subject.captioner
        if not isinstance(captioner, BaseTransformer):
            raise CapscopeError(f"{self.unfit(self.subject)}: choose another explainer")
        training = captioner.training
        captioner.eval()
        try:
            over: Over = "batch" if self.parity else "sample"
            rules = AlphaBeta(over=over, carried=getattr(torch, self.precision))
            found = DIFNetLRP(captioner, rules).explain(
                features,
                word_ids[:, :-1],
                None if self.parity else word_ids[:, 1:],
                to_inputs=not self.parity,
            )
        finally:
            captioner.train(training)
        found = found.to(torch.float32)
        words = found.embedded.sum(-1)
        account = {"start": torch.ones_like(words[..., 0]), "words": words.sum(-1)}
        for number, layer in enumerate(found.layers, 1):
            account[f"layer {number}"] = layer.sum((-2, -1))
        if found.cells is None:
            grid = found.encoded.sum(-1)
            account["grid"] = grid.sum(-1)
            return Explanation(grid, found.embedded.abs().sum(-1), conservation=account).within(
                lengths
            )
        grid, pixels = found.cells.sum(-1), None
        if images is not None:
            cells = found.cells
            if found.segments is not None:  # those of a network are told from its cells
                cells = _joined(cells, found.segments.sum(-1, keepdim=True))
            account["network"] = self.subject.network.to_maps(cells).sum((-3, -2, -1))
            pixels = relevance_to_pixels(self.subject, images, cells, image_rules.LRP)
            account["pixels"] = pixels.sum((-2, -1))
        if found.segments is not None:
            account["segments"] = found.segments.sum((-2, -1))
            grid = grid + found.segments.sum(-1)
        account["grid"] = grid.sum(-1)
        return Explanation(grid, words, pixels, conservation=account).within(lengths)


def _joined(cells: Tensor, segments: Tensor) -> Tensor:
    """Return (B, T, N, D): to a cell's channels, by the size of theirs, that of its segments."""
    size = cells.abs()
    return cells + segments * size / size.sum(-1, keepdim=True).clamp(min=1e-12)
