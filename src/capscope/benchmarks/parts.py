"""The parts of a captioner's input that can be taken away: visual features, patches, words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from capscope.benchmarks.ground_truth import maps_of
from capscope.benchmarks.probability import word_probabilities
from capscope.explain.raster import sum_pool
from capscope.explain.store import StoredRelevance
from capscope.explain.subject import Subject
from capscope.features.store import FeatureStore
from capscope.features.visual import Features


class Parts(ABC):
    """The input of one caption, in parts.

    Parameters
    ----------
    subject : Subject
    own : Features
        Of the caption's image.
    word_ids : sequence of int
        The caption.
    """

    def __init__(self, subject: Subject, own: Features, word_ids: Sequence[int]) -> None:
        self.subject = subject
        self.own = own
        self.ids: list[int] = subject.inputs(torch.tensor([word_ids]))[0].tolist()

    @abstractmethod
    def relevance(self, name: str, stored: StoredRelevance, seed: int) -> Tensor | None:
        """Return what an explainer or control finds of the parts for each word, (T, N) or None."""

    def of_word(self, relevance: Tensor, position: int) -> Tensor:
        """Return the relevance (N,) of the parts that there are when a word is said."""
        return relevance[position]

    @abstractmethod
    def features(self, kept: Tensor) -> Callable[[slice], Features]:
        """Return what gives the features of rows in which only some parts are `kept` (n, N)."""

    def prefix(self, position: int, kept: Tensor) -> list[int]:
        """Return the inputs before a word when some parts are `kept` (N,)."""
        return self.ids[: position + 1]

    def ask(self, kept: Tensor, positions: Sequence[int]) -> Tensor:
        """Return the probability (n,) of the words at `positions` when some parts are `kept`."""
        prefixes = [self.prefix(*pair) for pair in zip(positions, kept, strict=True)]
        asked = [self.ids[position + 1] for position in positions]
        return word_probabilities(self.subject.captioner, self.features(kept), prefixes, asked)


class Cells(Parts):
    """Visual features: grid cells or regions. What is taken away becomes `nothing` (N, D), (D,)."""

    def __init__(
        self, subject: Subject, own: Features, word_ids: Sequence[int], nothing: Tensor
    ) -> None:
        super().__init__(subject, own, word_ids)
        self.nothing = nothing
        everywhere = torch.ones(own.cells.shape[1], dtype=torch.bool)
        self.valid = everywhere if own.valid is None else own.valid[0]

    def relevance(self, name: str, stored: StoredRelevance, seed: int) -> Tensor | None:
        """Return the relevance (T, N) of all features that are not padding."""
        return maps_of(name, stored, seed)["grid"].flatten(1)[:, self.valid]

    def features(self, kept: Tensor) -> Callable[[slice], Features]:
        """Return features with `nothing` in place of what is not kept."""

        def changed(rows: slice) -> Features:
            found = repeated(self.own, rows)
            stays = torch.ones(found.cells.shape[:2], dtype=torch.bool)
            stays[:, self.valid] = kept[rows, : int(self.valid.sum())]
            cells = torch.where(stays.unsqueeze(-1), found.cells, self.nothing)
            return found._replace(cells=cells)

        return changed


class Patches(Parts):
    """Square patches of the image (3, S, S); what is taken away becomes ImageNet's mean colour."""

    def __init__(
        self, subject: Subject, own: Features, word_ids: Sequence[int], image: Tensor, width: int
    ) -> None:
        super().__init__(subject, own, word_ids)
        self.image = image
        self.side = max(1, image.shape[-1] // width)

    def relevance(self, name: str, stored: StoredRelevance, seed: int) -> Tensor | None:
        """Return the relevance (T, N) of patches, summed; None without pixel maps."""
        maps = maps_of(name, stored, seed).get("pixels")
        return None if maps is None else sum_pool(maps, self.side, self.side).flatten(1)

    def features(self, kept: Tensor) -> Callable[[slice], Features]:
        """Return the features of the image without some patches."""
        side, size = self.side, self.image.shape[-1]
        places = torch.arange(size) * side // size

        def changed(rows: slice) -> Features:
            mask = kept[rows].view(-1, 1, side, side)[:, :, places][:, :, :, places]
            return self.subject.look(self.image * mask)

        return changed


class Words(Parts):
    """The words before a word, from the first on; what is taken away is left out."""

    def relevance(self, name: str, stored: StoredRelevance, seed: int) -> Tensor | None:
        """Return the relevance (T, T) of preceding inputs, the start among them, or None."""
        length = len(stored.word_ids)
        if name == "random":
            generator = torch.Generator().manual_seed(seed + stored.image_id)
            return torch.randn(length, length, generator=generator)
        return None if name == "centre" else stored.words

    def of_word(self, relevance: Tensor, position: int) -> Tensor:
        """Return the relevance (position,) of the words before a word."""
        return relevance[position, 1 : position + 1]

    def features(self, kept: Tensor) -> Callable[[slice], Features]:
        """Return the features of the image."""
        return partial(repeated, self.own)

    def prefix(self, position: int, kept: Tensor) -> list[int]:
        """Return the start and the preceding words that are kept."""
        said = zip(self.ids[1 : position + 1], kept.tolist(), strict=False)
        return [self.ids[0], *(word_id for word_id, stays in said if stays)]


def repeated(own: Features, rows: slice) -> Features:
    """Return the features of one image as often as there are rows."""
    return own.select(torch.zeros(rows.stop - rows.start, dtype=torch.long))


def nothing(
    features: FeatureStore, image_ids: Sequence[int], baseline: Literal["mean", "zero"]
) -> Tensor:
    """Return what says nothing in place of a visual feature.

    Parameters
    ----------
    features : FeatureStore
    image_ids : sequence of int
    baseline : {"mean", "zero"}
        ``mean``: what these images show there on average, (N, D); of regions, which have no fixed
        place, their mean (D,). ``zero``: 0.
    """
    found = features.read(image_ids)
    if features.kind == "grid":
        mean = found.cells.mean(0)
    else:
        regions = found.cells.flatten(0, 1)
        mean = (regions if found.valid is None else regions[found.valid.flatten()]).mean(0)
    return mean if baseline == "mean" else torch.zeros_like(mean)
