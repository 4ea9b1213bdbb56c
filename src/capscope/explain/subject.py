"""What is explained: a captioner, its words, and the network that gave it its features."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.grid import GridExtractor
from capscope.features.store import grid_boxes
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.relevance.image import ImageRelevance
from capscope.relevance.image_rules import ImageRules


@dataclass
class Subject:
    """A trained captioner and all that an explainer needs of it.

    Attributes
    ----------
    captioner : Captioner
    vocabulary : Vocabulary
    extractor : GridExtractor or None
        The network behind grid features. Without it (regions, features from elsewhere)
        explanations end at the visual features.
    """

    captioner: Captioner
    vocabulary: Vocabulary
    extractor: GridExtractor | None = None
    _backward: dict[ImageRules, ImageRelevance] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def network(self) -> GridExtractor:
        """The extractor; a `CapscopeError` if there is none."""
        if self.extractor is None:
            raise CapscopeError(
                "this run has no network that turns images into its features: "
                "explain it at the visual features, without images"
            )
        return self.extractor

    def activations(self, cells: Tensor) -> Tensor:
        """Return the channels of cells (..., D) that are activations, not positions.

        A method that compares the strength of activations would light up the image's edges, where
        the channels that say where a cell is are largest.
        """
        return cells if self.extractor is None else cells[..., : self.extractor.channels]

    def image_relevance(self, rules: ImageRules) -> ImageRelevance:
        """Return the way back through the extractor's network, made once for each set of rules."""
        if rules not in self._backward:
            self._backward[rules] = ImageRelevance(self.network.network, rules)
        return self._backward[rules]

    def look(self, images: Tensor) -> Features:
        """Return the features of preprocessed images (B, 3, S, S)."""
        with torch.no_grad():
            cells = self.network(images)
        return Features(cells, grid_boxes(self.network.grid).expand(len(cells), -1, -1))

    def inputs(self, word_ids: Tensor) -> Tensor:
        """Put the start in front of captions (B, T): (B, T + 1) as explainers take them.

        A vocabulary without a start token starts with the padding id.
        """
        vocabulary = self.vocabulary
        start = vocabulary.pad if vocabulary.start is None else vocabulary.start
        return torch.cat([word_ids.new_full((len(word_ids), 1), start), word_ids], 1)
