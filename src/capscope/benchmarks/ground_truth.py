"""Ground truth: does the relevance of a word lie on what the word is about?

Every explainer is scored at grid resolution, at pixel resolution, and ``pooled``: its pixel maps
brought back to the cells of the grid, which says how much of a lead at the pixels is a finer
raster's. Only rows of one resolution may be compared, because finer maps point better whatever they
mean; attention, which knows cells only, is at its own resolution in ``grid`` and ``pooled``. Words
are scored where they are true of the image. Nouns and colours are the headline: what sizes, verbs
and relations are about is less certain, and for place and weather the target is everything outside
the objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from capscope.benchmarks.baselines import centre, centre_of_boxes, noise
from capscope.benchmarks.context import Context, explained_captions
from capscope.benchmarks.depiction import Depiction, WordReader, open_depictions
from capscope.benchmarks.localisation import (
    choice,
    object_relevance,
    pointing_hit,
    rank_accuracy,
    relevance_mass,
)
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.places import Boxes, masks_at, masks_on
from capscope.data.annotations import Dataset
from capscope.data.vocabulary import Vocabulary
from capscope.explain.raster import smooth, sum_pool
from capscope.explain.store import RelevanceStore, StoredRelevance

Maps = dict[str, Tensor]
"""Maps (T, h, w) of one caption by resolution."""
CONTROLS = ("random", "centre")
"""Controls that need no relevance store."""


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_ground_truth`."""
    return measure_ground_truth(
        context.stores,
        context.data_dir,
        context.dataset,
        context.vocabulary,
        sigma=context.settings["sigma"],
        **context.bootstrap,
    )


def measure_ground_truth(
    stores: Sequence[RelevanceStore],
    data_dir: Path,
    dataset: Dataset,
    vocabulary: Vocabulary,
    *,
    sigma: float,
    resamples: int,
    seed: int,
) -> list[Measurement]:
    """Score the stored relevance of all explainers, and two controls that need none.

    Parameters
    ----------
    stores : sequence of RelevanceStore
        All of the same captions of a run; one for each explainer and split.
    data_dir, dataset
        Where masks or boxes are.
    vocabulary : Vocabulary
        The run's.
    sigma : float
        Gaussian smoothing of pixel maps before pointing and pooling, in pixels of the image.
    resamples, seed : int
        Of the bootstrap over images; `seed` also draws the noise.
    """
    scores = Scores()
    ids = sorted({int(image_id) for store in stores for image_id in store.image_ids})
    size = max(store.image_size for store in stores)
    depictions, reader = open_depictions(data_dir, dataset, ids, size)
    for caption in explained_captions(stores, "ground truth"):
        words = [vocabulary.words[word_id] for word_id in caption.word_ids]
        case = Case(depictions[caption.image_id], reader, words)
        first = next(iter(caption.by_explainer.values()))
        for name in [*caption.by_explainer, *CONTROLS]:
            stored = caption.by_explainer.get(name, first)
            maps = maps_of(name, stored, seed)
            for resolution, kind, measure, value in case.scores(maps, sigma, stored.boxes):
                key = Key(name, resolution, kind, caption.split, measure)
                scores.add(key, caption.image_id, value)
    return scores.measurements(resamples, seed)


def maps_of(name: str, stored: StoredRelevance, seed: int) -> Maps:
    """Return the maps of an explainer, or those of the controls ``random`` and ``centre``.

    Maps of regions are (T, N, 1) at the grid, and painted over the boxes in pixels.
    """
    maps = {"grid": stored.grid}
    if stored.pixels is not None:
        maps["pixels"] = stored.pixels
    if name == "random":
        return {k: noise(v.shape, seed + stored.image_id) for k, v in maps.items()}
    if name == "centre":
        found = {k: centre(v.shape) for k, v in maps.items()}
        if stored.boxes is not None:
            found["grid"] = centre_of_boxes(stored.boxes).expand(maps["grid"].shape)
        return found
    return maps


class Raster(NamedTuple):
    """What n words are about, on a raster of h x w cells or on N regions (N, 1)."""

    shown: Tensor
    """(n, h, w) bool: the target shows at the centre of the cell or region."""
    covered: Tensor
    """(n, h, w) share of the cell or region that the target covers."""
    objects: Tensor
    """(K, h, w) share of the cell or region that each object covers."""


class Case:
    """One caption against what its image shows."""

    def __init__(self, depiction: Depiction, reader: WordReader, words: Sequence[str]) -> None:
        self.depiction = depiction
        self.kinds: list[str] = []
        self.positions: list[int] = []
        meant = []
        masks = depiction.masks
        background = ~masks.any(0)
        shown = []
        for word in reader(words):
            objects = depiction.meant(word)
            if word.about and not objects.any():
                continue
            self.kinds.append(word.kind)
            self.positions.append(word.position)
            meant.append(objects)
            shown.append(masks[objects].any(0) if word.about else background)
        self.meant = torch.stack(meant) if meant else torch.zeros(0, len(masks), dtype=torch.bool)
        self.shown = torch.stack(shown) if shown else masks[:0]
        self._rasters: dict[tuple[int, int], Raster] = {}

    def raster(self, height: int, width: int, boxes: Boxes | None = None) -> Raster:
        """Return targets and objects on a raster of maps, or on the regions of the image."""
        shape = (height, width)
        if shape not in self._rasters:
            self._rasters[shape] = Raster(
                masks_at(self.shown, shape, boxes),
                masks_on(self.shown, shape, boxes),
                masks_on(self.depiction.masks, shape, boxes),
            )
        return self._rasters[shape]

    def scores(
        self, maps: Maps, sigma: float, boxes: Boxes | None = None
    ) -> Iterator[tuple[str, str, str, float]]:
        """Yield resolution, kind of word, measure and value for every word that has a truth.

        With `boxes` the maps at the grid are those of regions.
        """
        if not self.positions:
            return
        decided = (self.meant.any(1) & ~self.meant.all(1)).tolist()
        cells = None if boxes is not None else maps["grid"].shape[1:]
        for resolution, chosen, pointed in self._chosen(maps, sigma, cells):
            height, width = chosen.shape[1:]
            raster = self.raster(height, width, boxes if resolution == "grid" else None)
            hits = pointing_hit(pointed, raster.shown).tolist()
            masses = relevance_mass(chosen, raster.covered).tolist()
            ranks = rank_accuracy(chosen, raster.shown).tolist()
            choices = choice(object_relevance(chosen, raster.objects), self.meant).tolist()
            for n, kind in enumerate(self.kinds):
                yield resolution, kind, "hit", hits[n]
                yield resolution, kind, "mass", masses[n]
                if raster.shown[n].any():
                    yield resolution, kind, "rank", ranks[n]
                if decided[n]:
                    yield resolution, kind, "choice", choices[n]

    def _chosen(
        self, maps: Maps, sigma: float, cells: Sequence[int] | None
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield resolution, the maps of the words with a truth, and the maps that point.

        With `cells`, the raster of the grid, also pixel maps pooled to it.
        """
        for resolution, relevance in maps.items():
            chosen = relevance[self.positions]
            if resolution != "pixels":
                yield resolution, chosen, chosen
                continue
            pointed = smooth(chosen, sigma * chosen.shape[-1] / self.depiction.masks.shape[-1])
            yield resolution, chosen, pointed
            if cells is not None:
                pooled = sum_pool(pointed, *cells)
                yield "pooled", pooled, pooled
