"""LIME in latent space: a linear model of what the captioner says over which features it sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.latent.masks import of_any_size, spread
from capscope.explain.latent.objects import PARTS, grouped
from capscope.explain.latent.perturbed import MEMORY, Perturbed
from capscope.explain.latent.replacement import Replacement, replacement
from capscope.explain.latent.surrogate import Array, Fit, fit, kernel_weights
from capscope.explain.pixels import enlarged
from capscope.explain.subject import Subject
from capscope.features.visual import Features

TARGETS = ("word", "caption")


@dataclass(frozen=True)
class LimeSettings:
    """How LIME perturbs and fits.

    Attributes
    ----------
    samples : int
        Perturbations of an image; all subsets if there are no more.
    seed : int
        Of masks and noise: the same seed, the same explanation.
    parts : {"features", "overlap", "class"}
        What is perturbed together: nothing; regions that overlap (by `overlap`, intersection over
        union); regions of one class. The relevance of an object is divided evenly among its
        regions.
    target : {"word", "caption"}
        Log-probability of the word at its place in the caption; or similarity of the caption that
        a greedy search finds then to the one that is explained (cosine of word counts), which is
        the same for all of its words.
    replacement : str
        What stands in place of a perturbed feature: zero, minimum, maximum or mean (of each
        dimension over the image's features), or noise of `sigma` standard deviations within these
        bounds.
    kernel, width
        How much a perturbation counts, see `kernel_weights`.
    regression, alpha, selection, selected
        The linear model, see `surrogate.fit`.
    memory_mb : int
        Of a chunk of perturbations.
    """

    samples: int = 500
    seed: int = 1
    parts: Literal["features", "overlap", "class"] = "features"
    overlap: float = 0.5
    target: Literal["word", "caption"] = "word"
    replacement: str = "mean"
    sigma: float = 1.0
    kernel: str = "exponential"
    width: float = 0.25
    regression: str = "ridge"
    alpha: float = 0.01
    selection: str = "none"
    selected: int = 10
    memory_mb: int = MEMORY >> 20

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("target", self.target, TARGETS),
            ("parts", self.parts, PARTS),
        ):
            if value not in allowed:
                raise CapscopeError(f"lime.{name} is {value!r}; allowed: {', '.join(allowed)}")
        if self.samples < 2:
            raise CapscopeError(f"lime.samples is {self.samples}: a fit needs 2 or more")


class LIME(Explainer):
    """Linear surrogate over perturbed visual features; positive is what speaks for a word.

    M. T. Ribeiro et al., "Why should I trust you?", KDD 2016; in latent space: S. Elguendouze et
    al., Neurocomputing 546, 2023, whose variants `capscope.explain.latent.published` has. Here a
    word is asked for at its place in the caption, perturbations count by how much they leave, and
    the signs point the right way.

    Parameters
    ----------
    lime : mapping, optional
        Fields of `LimeSettings`.
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"

    def __init__(
        self,
        subject: Subject,
        *options: Any,
        lime: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(subject, *options, **named)
        self.settings = LimeSettings(**(lime or {}))

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        batch, count, _ = features.cells.shape
        grid = features.cells.new_zeros(batch, word_ids.shape[1] - 1, count)
        start = grid.new_zeros(grid.shape[:2])
        for row, length in enumerate(lengths.tolist()):
            if length:
                own = features.select(slice(row, row + 1))
                found, removed = self.caption(own, word_ids[row, : length + 1])
                grid[row, :length], start[row, :length] = found, removed
        pixels = None
        if images is not None:
            pixels = enlarged(self.subject, grid, images.shape[-1])
        account = {"start": start, "grid": grid.sum(-1)}
        return Explanation(grid, pixels=pixels, conservation=account).within(lengths)

    def caption(self, own: Features, word_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Explain the caption (T + 1,) of one image.

        Returns
        -------
        relevance : Tensor (T, N)
        lost : Tensor (T,)
            What the target loses when all features are perturbed: the sum of an exact explanation.
        """
        settings, captioner = self.settings, self.subject.captioner
        there = _there(own)
        groups = grouped(own, settings.parts, settings.overlap)
        seen = of_any_size(len(groups), settings.samples, settings.seed)
        asked = torch.cat([seen, torch.ones(1, len(groups), dtype=torch.bool)])
        masks = torch.zeros(len(asked), len(there), dtype=torch.bool)
        masks[:, there] = spread(asked, groups)
        with torch.no_grad():
            latent = captioner.project(own)
        perturbed = Perturbed(
            captioner,
            own,
            self._stand_in(latent[0, there]),
            self._stand_in(own.cells[0, there]),
            memory_limit=settings.memory_mb << 20,
        )
        targets = self._targets(perturbed, masks, word_ids)
        found = self.fit(~seen, targets[:-1])
        lost = targets[0] - targets[-1]
        share = groups.double() / groups.sum(1, keepdim=True)
        relevance = torch.zeros(len(word_ids) - 1, len(there), dtype=torch.float64)
        relevance[:, there] = torch.from_numpy(found.coefficients) @ share
        return relevance.to(own.cells.dtype), torch.from_numpy(lost).to(own.cells.dtype)

    def fit(self, kept: Tensor, targets: Array) -> Fit:
        """Fit targets (n, T) over parts (n, K), 1 where a part is `kept`."""
        settings = self.settings
        x = kept.double().numpy()
        return fit(
            x,
            targets,
            kernel_weights(x, settings.kernel, settings.width),
            regression=settings.regression,
            alpha=settings.alpha,
            selection=settings.selection,
            selected=settings.selected,
        )

    def _stand_in(self, features: Tensor) -> Replacement:
        settings = self.settings
        return replacement(settings.replacement, features, sigma=settings.sigma, seed=settings.seed)

    def _targets(self, perturbed: Perturbed, masks: Tensor, word_ids: Tensor) -> Array:
        """Return what is explained of each perturbation and word: (n, T)."""
        if self.settings.target == "word":
            found: Array = perturbed.word_log_probs(masks, word_ids).double().numpy()
            return found
        vocabulary = self.subject.vocabulary
        said = perturbed.search(
            masks,
            start=int(word_ids[0]),
            end=vocabulary.end,
            beam=1,
            steps=2 * len(word_ids) + 1,
            word_ids=[vocabulary.end],
        )
        caption = word_ids[1:].tolist()
        alike = np.array([similarity(caption, one) for one in said.captions])
        return np.repeat(alike[:, None], len(caption), 1)


def similarity(a: Sequence[int], b: Sequence[int]) -> float:
    """Return the cosine of the word counts of two captions: in [0, 1]; 0 with an empty one."""
    counts = Counter(a), Counter(b)
    shared = sum(counts[0][word] * counts[1][word] for word in counts[0])
    norms = [sqrt(sum(n * n for n in one.values())) for one in counts]
    return shared / (norms[0] * norms[1]) if shared else 0.0


def _there(own: Features) -> Tensor:
    """Return which features (N,) of one image are no padding."""
    if own.valid is not None:
        return own.valid[0]
    return torch.ones(own.cells.shape[1], dtype=torch.bool)
