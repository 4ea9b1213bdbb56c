"""Rank correlation of relevance with the truth and with the detector, over visual features.

With the truth: does the relevance of a feature rise with the share of it that shows what the word
is about? With the detector (regions): does it rise with the detector's confidence? The published
"correlation" compares one rank with one rank, see `latent_published`: it is given beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from capscope.benchmarks.context import Context, explained_captions
from capscope.benchmarks.depiction import (
    Depiction,
    open_depictions,
    places_known,
    word_reader,
)
from capscope.benchmarks.ground_truth import CONTROLS, Case, maps_of
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.places import present
from capscope.explain.store import StoredRelevance
from capscope.features.regions import Regions


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_latent_correlation`."""
    return measure_latent_correlation(context, **context.bootstrap)


def measure_latent_correlation(context: Context, *, resamples: int, seed: int) -> list[Measurement]:
    """Return mean correlations of nouns, at the visual features.

    Returns
    -------
    list of Measurement
        ``spearman truth``, ``kendall truth``: with the share of each feature that the objects
        cover that a word is about, where they cover some and not all alike, and where boxes or
        masks tell. ``spearman detector``, ``kendall detector``: with the confidence of regions.
        ``score``, ``distance``: as published, of nouns whose class was detected; features that tie
        take their middle rank, and 1 / (1 + distance) is the score. ``detected``: share of nouns
        that have both.
    """
    scores, stores = Scores(), context.stores
    depictions: dict[int, Depiction] = {}
    reader = word_reader(context.data_dir)
    if places_known(context.data_dir):
        ids = sorted({int(image_id) for store in stores for image_id in store.image_ids})
        size = max(store.image_size for store in stores)
        depictions, reader = open_depictions(context.data_dir, context.dataset, ids, size)
    names = context.features.attributes.get("class_names") or []
    for caption in explained_captions(stores, "rank correlation"):
        words = [context.vocabulary.words[word_id] for word_id in caption.word_ids]
        nouns = [word for word in reader(words) if word.kind == "noun"]
        first = next(iter(caption.by_explainer.values()))
        there = present(first)
        covered = {}
        if depictions:
            covered = _covered(Case(depictions[caption.image_id], reader, words), first)
        regions = None
        if context.features.kind == "regions":
            regions = context.features.regions(caption.image_id)
        for name in [*caption.by_explainer, *CONTROLS]:
            maps = maps_of(name, caption.by_explainer.get(name, first), seed)["grid"].flatten(1)
            key = partial(Key, name, "grid", "noun", caption.split)
            for noun in nouns:
                relevance = maps[noun.position][there]
                found: list[tuple[str, float]] = []
                if noun.position in covered:
                    found += correlations(relevance, covered[noun.position][there], "truth")
                if regions is not None:
                    found += _detected(relevance, regions, noun.about, names)
                for measure, value in found:
                    scores.add(key(measure), caption.image_id, value)
    return scores.measurements(resamples, seed)


def _covered(case: Case, stored: StoredRelevance) -> dict[int, Tensor]:
    """Return the share (N,) of each feature that shows what a noun is about, by its position."""
    raster = case.raster(stored.grid.shape[1], stored.grid.shape[2], stored.boxes)
    return {
        position: raster.covered[n].flatten()
        for n, position in enumerate(case.positions)
        if case.kinds[n] == "noun"
    }


def correlations(relevance: Tensor, other: Tensor, label: str) -> Iterator[tuple[str, float]]:
    """Yield Spearman's and Kendall's (tau-b) correlation; nothing of a constant truth.

    Constant relevance says nothing: 0.
    """
    if len(other) < 2 or bool((other == other[0]).all()):
        return
    first, second = relevance.double().numpy(), other.double().numpy()
    yield f"spearman {label}", _cosine(*(_centred(rankdata(one)) for one in (first, second)))
    yield f"kendall {label}", _cosine(*(_order_of_pairs(one) for one in (first, second)))


def _centred(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = ranks - ranks.mean()
    return centred


def _order_of_pairs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sign of the difference of every pair: the cosine of two of these is tau-b."""
    signs: NDArray[np.float64] = np.sign(values[:, None] - values).ravel()
    return signs


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 0.0


def mid_rank(relevance: Tensor, feature: int) -> float:
    """Return the place of a feature from the most relevant one on, 0 first; ties share theirs."""
    ranks = rankdata(-relevance.numpy().astype(np.float64))
    return float(ranks[feature] - 1)


def _detected(
    relevance: Tensor, regions: Regions, about: tuple[str, ...], names: list[str]
) -> Iterator[tuple[str, float]]:
    """Yield what the detector's confidence and classes say of the relevance of regions."""
    if regions.scores is not None and len(regions.scores) == len(relevance):
        yield from correlations(relevance, regions.scores, "detector")
    if regions.class_ids is None or len(regions.class_ids) != len(relevance):
        return
    wanted = {names.index(name) for name in about if name in names}
    places = [n for n, one in enumerate(regions.class_ids.tolist()) if one in wanted]
    if wanted:
        yield "detected", float(bool(places))
    if places:
        distance = max(0.0, mid_rank(relevance, places[0]) - places[0])
        yield "distance", distance
        yield "score", 1 / (1 + distance)
