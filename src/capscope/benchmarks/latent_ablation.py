"""Latent ablation: what does a word lose without the visual features that an explainer ranks first?

The features are replaced behind the projection, so that the image is encoded once; all words and
explainers of a caption are decoded as one batch. A word may be said elsewhere than in the given
caption, so a search under ablation says besides whether it is still found at all.

Source: S. Elguendouze et al., Neurocomputing 546, 2023; its own figures, which differ, are those
of `capscope.benchmarks.latent_published`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capscope.benchmarks.context import Context, ExplainedCaption, explained_captions
from capscope.benchmarks.deletion import most_relevant
from capscope.benchmarks.depiction import WordReader, word_reader
from capscope.benchmarks.ground_truth import maps_of
from capscope.benchmarks.latent_published import AblationType
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.replacement import (
    SIGMA,
    BoundedNoise,
    Constant,
    Replacement,
    bounds_of,
)
from capscope.explain.words import Word
from capscope.features.visual import Features

CONTROL = "random"


class Case(NamedTuple):
    """The features that one explainer ranks first for one word."""

    kind: AblationType
    explainer: str
    word: Word
    mask: Tensor
    """(N,) bool"""


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_latent_ablation`."""
    return measure_latent_ablation(
        context,
        word_reader(context.data_dir),
        context.settings["latent_ablation"],
        **context.bootstrap,
    )


def measure_latent_ablation(
    context: Context, reader: WordReader, settings: dict[str, Any], *, resamples: int, seed: int
) -> list[Measurement]:
    """Return what nouns lose, for every type of ablation.

    Parameters
    ----------
    context : Context
    reader : WordReader
        Finds the nouns of a caption.
    settings : dict
        ``images``: captions of each split. ``types``: see `AblationType`; X is any number, and
        objects are the classes of a detector, so that those types are left out over grids.
        ``search``: look for the word in a search under ablation, too, with ``beam``.
    resamples, seed : int
        Of the bootstrap over images; `seed` also breaks ties and draws noise.

    Returns
    -------
    list of Measurement
        ``drop vf_3_min``: mean log-probability that the word loses at its place; ``drops ...``:
        share of words that lose any; ``missing ...``: share that a search under ablation does not
        say.
    """
    types = [AblationType.parse(text) for text in settings["types"]]
    scores, seen = Scores(), set()
    bounds = None
    for caption in explained_captions(context.stores, "latent ablation", settings["images"]):
        words = [context.subject.vocabulary.words[word_id] for word_id in caption.word_ids]
        asked = [word for word in reader(words) if word.kind == "noun"]
        if not asked:
            continue
        if bounds is None:
            bounds = _bounds(context, settings["images"])
        own = context.features.read([caption.image_id])
        cases = list(_cases(types, caption, asked, own, seed))
        for magnitude in dict.fromkeys(case.kind.magnitude for case in cases):
            alike = [case for case in cases if case.kind.magnitude == magnitude]
            latent, cells = (_stand_in(magnitude, *pair, seed) for pair in bounds)
            perturbed = Perturbed(context.subject.captioner, own, latent, cells)
            found = _figures(context, caption, perturbed, alike, settings)
            seen |= {case.kind for case in alike}
            for case, figures in zip(alike, found, strict=True):
                key = partial(Key, case.explainer, "grid", "noun", caption.split)
                for name, value in figures.items():
                    scores.add(key(f"{name} {case.kind}"), caption.image_id, value)
    for kind in types:
        if bounds is not None and kind not in seen:
            warnings.warn(
                f"latent_ablation: no image has enough visual features or objects for {kind}, "
                "which is left out",
                stacklevel=2,
            )
    return scores.measurements(resamples, seed)


def _bounds(context: Context, images: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return bounds of each dimension of the latent features and of the features themselves."""
    ids = context.stores[0].image_ids[:images].tolist()
    seen = context.features.read(ids)
    with torch.no_grad():
        latent = context.subject.captioner.project(seen)
    return bounds_of(latent, seen.valid), bounds_of(seen.cells, seen.valid)


def _cases(
    types: Sequence[AblationType],
    caption: ExplainedCaption,
    asked: Sequence[Word],
    own: Features,
    seed: int,
) -> Iterator[Case]:
    """Yield what every explainer ranks first, by the types that the image has enough features for.

    Objects are counted among all features, so that a type is there for all explainers or for none.
    """
    count = own.cells.shape[1]
    there = torch.ones(count, dtype=torch.bool) if own.valid is None else own.valid[0]
    places = there.nonzero().flatten()
    classes = [] if own.class_ids is None else own.class_ids[0, there].tolist()
    first = next(iter(caption.by_explainer.values()))
    for name in [*caption.by_explainer, CONTROL]:
        maps = maps_of(name, caption.by_explainer.get(name, first), seed)["grid"].flatten(1)
        for word in asked:
            relevance = maps[word.position][there]
            ranked = most_relevant(relevance, range(1, len(relevance) + 1), seed + caption.image_id)
            order = _order(ranked)
            for kind in types:
                positions = kind.positions(order, classes)
                if positions is not None:
                    mask = torch.zeros(count, dtype=torch.bool)
                    mask[places[positions]] = True
                    yield Case(kind, name, word, mask)


def _order(ranked: Tensor) -> list[int]:
    """Return features from the most relevant one on, from the sets (n, N) of the first n."""
    rank = len(ranked) - ranked.sum(0)
    order: list[int] = rank.argsort().tolist()
    return order


def _figures(
    context: Context,
    caption: ExplainedCaption,
    perturbed: Perturbed,
    cases: Sequence[Case],
    settings: dict[str, Any],
) -> list[dict[str, float]]:
    subject = context.subject
    rows = torch.stack([torch.zeros_like(cases[0].mask), *(case.mask for case in cases)])
    masks, places = torch.unique(rows, dim=0, return_inverse=True)
    inputs = subject.inputs(torch.tensor([caption.word_ids]))[0]
    log_probs = perturbed.word_log_probs(masks, inputs)[places]
    found = []
    for row, case in enumerate(cases, 1):
        position = case.word.position
        lost = float(log_probs[0, position] - log_probs[row, position])
        found.append({"drop": lost, "drops": float(lost > 0)})
    if settings["search"]:
        end = subject.vocabulary.end
        spoken = perturbed.search(
            masks, start=int(inputs[0]), end=end, beam=settings["beam"], word_ids=[end]
        )
        for row, (case, figures) in enumerate(zip(cases, found, strict=True), 1):
            said = spoken.captions[int(places[row])]
            figures["missing"] = float(caption.word_ids[case.word.position] not in said)
    return found


def _stand_in(magnitude: str, low: Tensor, high: Tensor, seed: int) -> Replacement:
    if magnitude == "15":
        return BoundedNoise(SIGMA, low, high, seed)
    return Constant(0.0 if magnitude == "min" else high)
