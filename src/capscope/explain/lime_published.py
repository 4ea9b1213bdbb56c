"""The published LIME variants as explainers; see `capscope.explain.latent.published`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.latent.masks import drawn, subsets
from capscope.explain.latent.objects import by_class, classes_of
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
from capscope.explain.subject import Subject
from capscope.features.grid import GridExtractor
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

    Objects are the classes that the detector is surest of; with parity, those with the lowest
    numbers, and images with fewer are not explained: their relevance is 0.
    """

    @classmethod
    def unfit(cls, subject: Subject) -> str | None:
        """Return that a grid has no objects, for the variants over objects."""
        if VARIANTS[cls.name].masks == "objects" and isinstance(subject.extractor, GridExtractor):
            return "cells of a grid have no classes: it needs regions of a detector"
        return None

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
        chosen = self._masks(own, len(there))
        if chosen is None:
            return torch.zeros(len(word_ids) - 1, count)
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

    def _masks(self, own: Features, count: int) -> Tensor | None:
        variant = VARIANTS[self.name]
        if variant.masks == "objects":
            class_ids = classes_of(own)
            if self.parity:
                return variant_masks(self.name, count, class_ids)
            groups = by_class(class_ids, count)
            surest = [*dict.fromkeys(one for one in class_ids if one in groups)]
            if not surest:
                return None
            return subsets(torch.stack([groups[one] for one in surest[: variant.size]]))
        if variant.masks == "drawn" and not self.parity:
            size = max(1, round(count * variant.size / FEATURES))
            return drawn(count, size, variant.count, SEED)
        return variant_masks(self.name, count, seed=SEED)

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


class LIME5Objects(PublishedLIME):
    """All subsets of 5 objects; zeros."""

    name: ClassVar[str] = "lime_5obj"
    title: ClassVar[str] = "LIME, 5 objects"


class LIME8Objects(PublishedLIME):
    """All subsets of 8 objects; zeros."""

    name: ClassVar[str] = "lime_8obj"
    title: ClassVar[str] = "LIME, 8 objects"
