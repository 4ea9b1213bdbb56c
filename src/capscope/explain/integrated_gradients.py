"""Integrated gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import gradient_to_pixels
from capscope.features.visual import Features
from capscope.relevance.backward import word_multipliers
from capscope.relevance.rules import GRADIENT


class IntegratedGradients(Explainer):
    """The mean gradient on the straight way from no image to the image, times that way.

    Visual features start from zero activations (channels that say where a cell is stay); pixels,
    where there is a network, from the mean colour of ImageNet, on a way of their own. The words
    stay as they are said. Relevance of all cells (all pixels) adds up to what the logit gains from
    start to end (completeness), up to the error of a Gauss-Legendre sum over `steps` points; the
    account of conservation holds both.

    M. Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017, equation 1.
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "integrated gradients"

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        grid, gained = self.at_features(features, word_ids)
        account = {"start": gained, "grid": grid.sum(-1)}
        pixels = None
        if images is not None:
            pixels, account["network"] = self.at_pixels(images, word_ids)
            account["pixels"] = pixels.sum((-2, -1))
        return Explanation(grid, pixels=pixels, conservation=account).within(lengths)

    def at_features(self, features: Features, word_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relevance of cells (B, T, N), and what the logits (B, T) gain on the way."""
        start = features.cells.clone()
        self.subject.activations(start).zero_()
        way = features.cells - start
        total = torch.zeros(())
        for point, weight in self.points():
            cells = start + point * way
            gradient = self.gradient(features._replace(cells=cells), word_ids)
            total = total + weight * (gradient * way.unsqueeze(1)).sum(-1)
        ends = (features, features._replace(cells=start))
        gained, lost = (self.logits(end, word_ids) for end in ends)
        return total, gained - lost

    def at_pixels(self, images: Tensor, word_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relevance of pixels (B, T, S, S), and what the logits (B, T) gain."""
        subject, total = self.subject, torch.zeros(())
        for point, weight in self.points():
            seen = point * images
            gradient = self.gradient(subject.look(seen), word_ids)
            pixels = gradient_to_pixels(subject, seen, gradient)
            total = total + weight * (pixels * images.unsqueeze(1)).sum(2)
        ends = (images, torch.zeros_like(images))
        gained, lost = (self.logits(subject.look(end), word_ids) for end in ends)
        return total, gained - lost

    def points(self) -> Iterator[tuple[float, float]]:
        """Yield the points in (0, 1) of the sum, and their weights, which add up to 1."""
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        yield from zip((points / 2 + 0.5).tolist(), (weights / 2).tolist(), strict=True)

    def gradient(self, features: Features, word_ids: Tensor) -> Tensor:
        """Return the gradient of all words' logits at visual features (B, T, N, D)."""
        rules = self.rules_of(GRADIENT)
        return word_multipliers(self.subject.captioner, features, word_ids, rules).cells

    def logits(self, features: Features, word_ids: Tensor) -> Tensor:
        """Return the logits (B, T) of the words."""
        captioner = self.subject.captioner
        with torch.no_grad():
            hidden = captioner.hidden(features, word_ids[:, :-1])
            return captioner.readout(hidden.values, word_ids[:, 1:])
