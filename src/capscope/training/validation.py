"""What a captioner is worth on validation images: scores of its captions, loss on references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from capscope.data.annotations import Dataset
from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.decoding.captions import caption_split
from capscope.decoding.hypothesis import searching
from capscope.errors import CapscopeError
from capscope.features.visual import FeatureSource
from capscope.metrics.evaluate import CaptionScorer
from capscope.models.captioner import Captioner
from capscope.models.from_images import FromImages
from capscope.training.batches import frame
from capscope.training.loop import Recipe
from capscope.training.objectives import cross_entropy

SCORES = {"cider": "CIDEr", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L"}
"""Names of a validation's scores in the log, and as metrics."""


def validated(dataset: Dataset, recipe: Recipe) -> list[int]:
    """Return the images that are captioned after each epoch."""
    images = dataset.split("val")[: recipe.validation_images]
    if not images:
        raise CapscopeError(f"data set {dataset.name} has no images in its split val")
    return [image.id for image in images]


class Validation:
    """Scores of the captions of some validation images, and cross-entropy of their references.

    Captions are as long as the references that are trained on. ``loss`` is the mean over the words
    of all references that are short enough, without label smoothing; the references of images that
    have only longer ones do not count.
    """

    def __init__(
        self,
        dataset: Dataset,
        captions: EncodedCaptions,
        source: FeatureSource,
        vocabulary: Vocabulary,
        recipe: Recipe,
    ) -> None:
        self.captions, self.source, self.vocabulary = captions, source, vocabulary
        self.ids = validated(dataset, recipe)
        source.rows(self.ids)
        references = [dataset.by_id(image_id).tokens for image_id in self.ids]
        self.scorer = CaptionScorer([[" ".join(words) for words in image] for image in references])
        self.rows = [
            (image_id, row)
            for image_id in self.ids
            if image_id in captions
            for row in captions.rows_of(image_id)
        ]
        self.settings: Mapping[str, Any] = {
            "method": "beam",
            "beam": recipe.validation_beam,
            "max_length": captions.labels.shape[1],
            "batch_size": recipe.batch_size,
        }

    def __call__(self, captioner: Captioner) -> dict[str, float]:
        """Return the scores, `SCORES` and ``loss``."""
        found = caption_split(captioner, self.source, self.ids, self.vocabulary, self.settings)
        said = [self.vocabulary.decode(best.word_ids) for _, (best, *_) in found]
        measures = self.scorer.measures(said)
        scores = {name: measures[metric].value for name, metric in SCORES.items()}
        return {**scores, "loss": self.loss(captioner)} if self.rows else scores

    def loss(self, captioner: Captioner) -> float:
        """Return the mean of -log p over the words of the references and their ends."""
        total, words, size = 0.0, 0, self.settings["batch_size"]
        with searching(captioner):
            for first in range(0, len(self.rows), size):
                images, rows = np.array(self.rows[first : first + size]).T
                ids, place = np.unique(images, return_inverse=True)
                features, inner = self.source.read(ids), captioner
                if isinstance(captioner, FromImages):  # an image is looked at once
                    features, inner = captioner.look(features), captioner.captioner
                batch = frame(self.captions, rows, self.vocabulary).to(captioner.device)
                loss = cross_entropy(inner, features.select(torch.from_numpy(place)), batch)
                count = int(batch.valid.sum())
                total, words = total + loss.item() * count, words + count
        return total / words
