"""What is explained: a captioner, its words, and the network that gave it its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.extractor import look
from capscope.features.grid import GridExtractor
from capscope.features.store import grid_boxes
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.relevance.image import ImageRelevance
from capscope.relevance.image_rules import ImageRules

if TYPE_CHECKING:
    from capscope.features.extractor import Extractor


@dataclass
class Subject:
    """A trained captioner and all that an explainer needs of it.

    Attributes
    ----------
    captioner : Captioner
    vocabulary : Vocabulary
    extractor : GridExtractor, Detector or None
        What turns images into the features. Only the network behind a grid leads on to pixels;
        over regions, and features from elsewhere, explanations end at the visual features.
    """

    captioner: Captioner
    vocabulary: Vocabulary
    extractor: Extractor | None = None
    _backward: dict[ImageRules, ImageRelevance] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def network(self) -> GridExtractor:
        """The extractor of a grid, from images of one size; a `CapscopeError` if there is none."""
        if not isinstance(self.extractor, GridExtractor) or self.extractor.image_size is None:
            raise CapscopeError(
                "this run has no network that turns images into its features: "
                "explain it at the visual features, without images"
            )
        return self.extractor

    @property
    def image_size(self) -> int | None:
        """Width and height of preprocessed images; None without a network behind a grid."""
        return self.extractor.image_size if isinstance(self.extractor, GridExtractor) else None

    def activations(self, cells: Tensor) -> Tensor:
        """Return the channels of cells (..., D) that are activations, not positions.

        A method that compares the strength of activations would light up the image's edges, where
        the channels that say where a cell is are largest.
        """
        if isinstance(self.extractor, GridExtractor):
            return cells[..., : self.extractor.channels]
        return cells

    def image_relevance(self, rules: ImageRules) -> ImageRelevance:
        """Return the way back through the extractor's network, made once for each set of rules."""
        if rules not in self._backward:
            self._backward[rules] = ImageRelevance(self.network.network, rules)
        return self._backward[rules]

    def look(self, images: Tensor) -> Features:
        """Return the features of preprocessed images (B, 3, S, S)."""
        with torch.no_grad():
            cells = self.network(images)
            segments = self.network.segments(cells)
        boxes = grid_boxes(self.network.grid).expand(len(cells), -1, -1)
        return Features(cells, boxes, None, segments)

    def see(self, pictures: Sequence[NDArray[np.uint8]]) -> tuple[Tensor | None, Features]:
        """Return RGB pictures (H, W, 3) as explainers take them, and their features.

        Preprocessed images (B, 3, S, S) are None where they do not lead to pixels.

        Raises
        ------
        CapscopeError
            If the run has nothing that turns images into its features.
        """
        if self.extractor is None:
            raise CapscopeError(
                "this run has nothing that turns images into its features, which came from "
                "elsewhere: its own images cannot be captioned"
            )
        if not isinstance(self.extractor, GridExtractor):
            return None, look(self.extractor, pictures)
        prepared = [self.extractor.preprocess(Pillow.fromarray(one)) for one in pictures]
        images = torch.stack(prepared)
        return images, self.look(images)

    def inputs(self, word_ids: Tensor) -> Tensor:
        """Put the start in front of captions (B, T): (B, T + 1) as explainers take them.

        A vocabulary without a start token starts with the padding id.
        """
        vocabulary = self.vocabulary
        start = vocabulary.pad if vocabulary.start is None else vocabulary.start
        return torch.cat([word_ids.new_full((len(word_ids), 1), start), word_ids], 1)
