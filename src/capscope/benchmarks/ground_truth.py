"""Ground truth: does the relevance of a word lie on what the word is about?

Every explainer is scored at grid resolution and at pixel resolution; only rows of one resolution
may be compared, because finer maps point better whatever they mean. Words are scored where they
are true of the image. Nouns and colours are the headline: what sizes, verbs and relations are
about is less certain, and for place and weather the target is everything outside the objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from capscope.benchmarks.baselines import centre, noise
from capscope.benchmarks.depiction import Depiction, WordReader, open_depictions
from capscope.benchmarks.localisation import choice, object_relevance, pointing_hit, relevance_mass
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.data.annotations import Dataset
from capscope.data.vocabulary import Vocabulary
from capscope.explain.raster import at_centres, coverage, smooth
from capscope.explain.store import RelevanceStore, StoredRelevance

Maps = dict[str, Tensor]
"""Maps (T, h, w) of one caption by resolution."""


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
        All of the same run; one for each explainer and split.
    data_dir, dataset
        Where masks or boxes are.
    vocabulary : Vocabulary
        The run's.
    sigma : float
        Gaussian smoothing of pixel maps before pointing, in pixels of the image.
    resamples, seed : int
        Of the bootstrap over images; `seed` also draws the noise.
    """
    scores = Scores()
    controlled: set[str] = set()
    ids = sorted({int(image_id) for store in stores for image_id in store.image_ids})
    size = max(store.image_size for store in stores)
    depictions, reader = open_depictions(data_dir, dataset, ids, size)
    for store in tqdm(stores, desc="ground truth", unit="store"):
        named = [store.explainer]
        if store.split not in controlled:
            controlled.add(store.split)
            named += ["random", "centre"]
        for stored in (store[row] for row in range(len(store))):
            words = [vocabulary.words[word_id] for word_id in stored.word_ids]
            case = Case(depictions[stored.image_id], reader, words)
            for name in named:
                maps = maps_of(name, stored, seed)
                for resolution, kind, measure, value in case.scores(maps, sigma):
                    key = Key(name, resolution, kind, store.split, measure)
                    scores.add(key, stored.image_id, value)
    return scores.measurements(resamples, seed)


def maps_of(name: str, stored: StoredRelevance, seed: int) -> Maps:
    """Return the maps of an explainer, or those of the controls ``random`` and ``centre``."""
    maps = {"grid": stored.grid}
    if stored.pixels is not None:
        maps["pixels"] = stored.pixels
    if name == "random":
        return {k: noise(v.shape, seed + stored.image_id) for k, v in maps.items()}
    if name == "centre":
        return {k: centre(v.shape) for k, v in maps.items()}
    return maps


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

    def scores(self, maps: Maps, sigma: float) -> Iterator[tuple[str, str, str, float]]:
        """Yield resolution, kind of word, measure and value for every word that has a truth."""
        if not self.positions:
            return
        decided = self.meant.any(1) & ~self.meant.all(1)
        for resolution, relevance in maps.items():
            chosen = relevance[self.positions]
            height, width = chosen.shape[1:]
            pointed = chosen
            if resolution == "pixels":
                pointed = smooth(chosen, sigma * width / self.depiction.masks.shape[-1])
            hits = pointing_hit(pointed, at_centres(self.shown, height, width))
            masses = relevance_mass(chosen, coverage(self.shown, height, width))
            objects = object_relevance(chosen, coverage(self.depiction.masks, height, width))
            choices = choice(objects, self.meant)
            for n, kind in enumerate(self.kinds):
                yield resolution, kind, "hit", float(hits[n])
                yield resolution, kind, "mass", float(masses[n])
                if decided[n]:
                    yield resolution, kind, "choice", float(choices[n])
