"""Guided backpropagation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from capscope.explain.gradient import Gradient
from capscope.features.visual import Features
from capscope.models.gridtd import GridTD
from capscope.relevance import image_rules, rules
from capscope.relevance.backward import Multipliers
from capscope.relevance.image_rules import ImageRules
from capscope.relevance.rules import Rules


class GuidedBackprop(Gradient):
    """The derivative of which every rectifier lets the positive part through, where it is open.

    Rectifiers are those of the captioner and of the image network. J. Springenberg et al.,
    "Striving for simplicity", ICLR workshop 2015. With parity, only those of the image network, and
    the derivative of gridTD ends where a feature is not positive.
    """

    name: ClassVar[str] = "guided_backprop"
    title: ClassVar[str] = "guided backprop"
    rules: ClassVar[Rules] = rules.GUIDED
    image_rules: ClassVar[ImageRules] = image_rules.GUIDED

    def multipliers(self, features: Features, word_ids: Tensor) -> Multipliers:
        """Return the guided derivative at visual features (B, T, N, D) and embedded words."""
        found = super().multipliers(features, word_ids)
        if self.parity and isinstance(self.subject.captioner, GridTD):
            active = features.cells.unsqueeze(1) > 0
            found = found._replace(cells=torch.where(active, found.cells, 0.0))
        return found
