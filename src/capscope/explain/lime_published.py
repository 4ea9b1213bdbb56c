"""The published LIME variants over single features, as explainers.

Those over objects need the classes of a detector, which no explainer is given: `capscope latent`
has them. See `capscope.explain.latent.published`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.latent.masks import drawn
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.published import (
    BEAM,
    STEPS,
    VARIANTS,
    fit_variant,
    variant_masks,
)
from capscope.explain.latent.replacement import (
    SIGMA,
    BoundedNoise,
    Constant,
    RejectionNoise,
    Replacement,
    bounds_of,
)
from capscope.explain.pixels import enlarged
from capscope.features.visual import Features

SEED = 1
FEATURES = 36
"""Features of an image in the published program; of others, the same share is perturbed."""


class PublishedLIME(Explainer):
    """A published variant: ridge over the largest log-probability a search ever gave a word.

    Relevance is the coefficient with its sign turned, so that what speaks for a word is positive;
    with parity, the coefficient itself, by which the program ranks. With parity padding takes part,
    and the number of features that are perturbed together is the published one whatever their
    number.
    """

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        batch, count, _ = features.cells.shape
        grid = features.cells.new_zeros(batch, word_ids.shape[1] - 1, count)
        for row, length in enumerate(lengths.tolist()):
            if length:
                own = features.select(slice(row, row + 1))
                grid[row, :length] = self.caption(own, word_ids[row, : length + 1])
        pixels = None
        if images is not None:
            pixels = enlarged(self.subject, grid, images.shape[-1])
        return Explanation(grid, pixels=pixels).within(lengths)

    def caption(self, own: Features, word_ids: Tensor) -> Tensor:
        """Return the relevance (T, N) for the words of the caption (T + 1,) of one image."""
        count = own.cells.shape[1]
        there = torch.arange(count)
        if own.valid is not None and not self.parity:
            there = own.valid[0].nonzero().flatten()
        chosen = self._masks(len(there))
        masks = torch.zeros(len(chosen), count, dtype=torch.bool)
        masks[:, there] = chosen
        asked, places = torch.unique(word_ids[1:], return_inverse=True)
        latent, cells = self._stand_ins(own, there)
        found = Perturbed(self.subject.captioner, own, latent, cells).search(
            masks,
            start=int(word_ids[0]),
            end=self.subject.vocabulary.end,
            beam=BEAM,
            steps=STEPS,
            word_ids=asked.tolist(),
        )
        fitted = fit_variant(chosen, found.log_probs.double().numpy())
        coefficients = torch.from_numpy(
            fitted.coefficients if self.parity else -fitted.coefficients
        )
        relevance = torch.zeros(len(places), count, dtype=torch.float64)
        relevance[:, there] = coefficients[places]
        return relevance.to(own.cells.dtype)

    def _masks(self, count: int) -> Tensor:
        variant = VARIANTS[self.name]
        if variant.masks == "drawn" and not self.parity:
            size = max(1, round(count * variant.size / FEATURES))
            return drawn(count, size, variant.count, SEED)
        found = variant_masks(self.name, count, seed=SEED)
        assert found is not None
        return found

    def _stand_ins(self, own: Features, there: Tensor) -> tuple[Replacement, Replacement | None]:
        """Return what replaces latent features and, but with parity, the features behind them."""
        if VARIANTS[self.name].magnitude == "min":
            return Constant(0.0), None if self.parity else Constant(0.0)
        with torch.no_grad():
            latent = self.subject.captioner.project(own)[:, there]
        low, high = bounds_of(latent)
        if self.parity:
            return RejectionNoise(SIGMA, low, high, np.random.RandomState(SEED)), None
        behind = bounds_of(own.cells[:, there])
        return BoundedNoise(SIGMA, low, high, SEED), BoundedNoise(SIGMA, *behind, SEED)


class LIME1(PublishedLIME):
    """Nothing, every feature, every pair; zeros."""

    name: ClassVar[str] = "lime1"
    title: ClassVar[str] = "LIME, singles and pairs"


class LIME2(PublishedLIME):
    """50 times 5 of 36 features; zeros."""

    name: ClassVar[str] = "lime2"
    title: ClassVar[str] = "LIME, 50 x 5"


class LIME3(PublishedLIME):
    """Nothing, every feature, every pair; noise."""

    name: ClassVar[str] = "lime3"
    title: ClassVar[str] = "LIME, singles and pairs, noise"


class LIME4(PublishedLIME):
    """50 times 13 of 36 features; zeros."""

    name: ClassVar[str] = "lime4"
    title: ClassVar[str] = "LIME, 50 x 13"


class LIME5(PublishedLIME):
    """500 times 13 of 36 features; zeros."""

    name: ClassVar[str] = "lime5"
    title: ClassVar[str] = "LIME, 500 x 13"
