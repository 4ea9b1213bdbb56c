"""Controls: maps that look like explanations but know nothing of the word, or nothing at all.

An explainer is worth something only above these. Two more controls, noise and the image's centre,
need no model; see `capscope.benchmarks.baselines`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.lrp import LRP
from capscope.explain.pixels import relevance_to_pixels
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.models.captioner import Captioner

SEED = 1


class FeatureNorm(Explainer):
    """Where the features are large, whatever the word: the norm of each visual feature.

    For pixels, the norm is divided among channels by their squares and carried on by LRP.
    """

    name: ClassVar[str] = "feature_norm"
    title: ClassVar[str] = "feature norm (no word)"
    sign: ClassVar[Literal["signed", "positive"]] = "positive"
    control: ClassVar[bool] = True

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Return the same map for every word; see `Explainer.explain`."""
        count = word_ids.shape[1] - 1
        cells = self.subject.activations(features.cells)
        norm = cells.norm(dim=-1)
        pixels = None
        if images is not None:
            shared = cells**2 / norm.clamp(min=torch.finfo(norm.dtype).tiny).unsqueeze(-1)
            one = relevance_to_pixels(self.subject, images, shared.unsqueeze(1))
            pixels = one.expand(-1, count, -1, -1)
        grid = norm.unsqueeze(1).expand(-1, count, -1)
        return Explanation(grid, pixels=pixels).within(lengths)


class RandomDecoder(LRP):
    """LRP of a captioner whose weights are random numbers as large as the trained ones.

    Every parameter is drawn from a normal distribution of its own mean and deviation; the image
    network is kept. J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
    """

    name: ClassVar[str] = "random_decoder"
    title: ClassVar[str] = "LRP, random decoder"
    control: ClassVar[bool] = True

    def __init__(self, subject: Subject, *options: Any, **named: Any) -> None:
        super().__init__(subject, *options, **named)
        self.untrained = deepcopy(subject.captioner)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.forget(self.untrained)

    def explained(self) -> Captioner:
        """Return the captioner that has forgotten what it learned."""
        return self.untrained

    def forget(self, captioner: Captioner) -> None:
        """Draw all weights anew, as large as they are."""
        with torch.no_grad():
            for parameter in captioner.parameters():
                mean, deviation = parameter.mean(), parameter.std(correction=0)
                parameter.normal_().mul_(deviation).add_(mean)


class InitialDecoder(RandomDecoder):
    """LRP of a captioner with weights as before training.

    They are so small that attention is flat and all words get nearly the same map: one draw is
    one mixture of channels, and draws differ far more than those of `RandomDecoder`.
    """

    name: ClassVar[str] = "initial_decoder"
    title: ClassVar[str] = "LRP, initial decoder"

    def forget(self, captioner: Captioner) -> None:
        """Draw all weights as before training."""
        for module in captioner.modules():
            if next(module.parameters(recurse=False), None) is not None:
                module.reset_parameters()  # type: ignore[operator]
