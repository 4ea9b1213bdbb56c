"""Removal: which object made the captioner say the word?

A scene is drawn again without one object, and the same caption is fed to the captioner. The
object whose removal costs a word most log-probability is its causal object. An explainer is right
where the object with the most relevance is the causal one. Unlike masks, this also judges words
that are not true: a hallucinated noun has no mask, but it has a cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from capscope.benchmarks.context import Context
from capscope.benchmarks.depiction import Depiction, scene_depictions
from capscope.benchmarks.ground_truth import maps_of
from capscope.benchmarks.localisation import choice, object_relevance
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.places import boxes_of, masks_on
from capscope.data.annotations import Dataset
from capscope.data.scenes.render import render
from capscope.explain.store import RelevanceStore, StoredRelevance
from capscope.explain.subject import Subject
from capscope.explain.words import scene_words
from capscope.features.visual import Features

KINDS = {True: "noun", False: "hallucinated noun"}
LARGEST_BATCH = 64
"""Drawn images that go through the network at once."""


class Noun(NamedTuple):
    """A noun of a caption, with its cause."""

    position: int
    meant: Tensor
    """(K,) bool: the objects of its class; none if it is hallucinated."""
    causal: Tensor
    """(K,) bool: the object whose removal costs it most."""


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_removal`."""
    return measure_removal(
        context.stores,
        context.subject,
        context.data_dir,
        context.dataset,
        images=context.settings["removal_images"],
        **context.bootstrap,
    )


def measure_removal(
    stores: Sequence[RelevanceStore],
    subject: Subject,
    data_dir: Path,
    dataset: Dataset,
    *,
    images: int,
    resamples: int,
    seed: int,
) -> list[Measurement]:
    """Compare each explainer's choice with the causal object, for true and hallucinated nouns.

    Parameters
    ----------
    stores : sequence of RelevanceStore
        All of the same run; one for each explainer and split.
    subject : Subject
        The run that was explained.
    data_dir, dataset
        Drawn scenes.
    images : int
        Scenes of each split that are used: the first ones of two objects or more.
    resamples, seed : int
        Of the bootstrap over images; `seed` also draws the noise.

    Notes
    -----
    Nouns that no removal makes less likely have no cause in the image and are left out. The row
    ``named object`` says how often the object that a true noun names is its cause.
    """
    scores = Scores()
    splits = dict.fromkeys(store.split for store in stores)
    for split in splits:
        own = [store for store in stores if store.split == split]
        depictions = _several_objects(own[0], data_dir, dataset, images)
        captions = {stored.image_id: stored for stored in _rows(own[0], depictions)}
        nouns = _causes(subject, depictions, captions, split)
        for image_id, found in nouns.items():
            for noun in found:
                if noun.meant.any():
                    key = Key("named object", "masks", "noun", split, "agreement")
                    scores.add(key, image_id, float((noun.meant & noun.causal).any()))
        for store in own:
            named = [store.explainer, *(["random", "centre"] if store is own[0] else [])]
            for stored in _rows(store, depictions):
                for name in named:
                    for resolution, maps in maps_of(name, stored, seed).items():
                        masks = depictions[stored.image_id].masks
                        objects = masks_on(masks, maps.shape[1:], boxes_of(stored, resolution))
                        for kind, value in _agreement(maps, objects, nouns[stored.image_id]):
                            key = Key(name, resolution, kind, split, "agreement")
                            scores.add(key, stored.image_id, value)
    return scores.measurements(resamples, seed)


def _several_objects(
    store: RelevanceStore, data_dir: Path, dataset: Dataset, images: int
) -> dict[int, Depiction]:
    """Return what the first scenes with a choice of objects show."""
    every = scene_depictions(data_dir, dataset, store.image_ids.tolist())
    several = [depiction for depiction in every.values() if len(depiction.objects) > 1]
    return {depiction.image_id: depiction for depiction in several[:images]}


def _rows(store: RelevanceStore, depictions: Mapping[int, Depiction]) -> Iterator[StoredRelevance]:
    for row, image_id in enumerate(store.image_ids.tolist()):
        if image_id in depictions:
            yield store[row]


def _causes(
    subject: Subject,
    depictions: Mapping[int, Depiction],
    captions: Mapping[int, StoredRelevance],
    split: str,
) -> dict[int, list[Noun]]:
    """Find the causal object of every noun; scenes go through the network in large batches."""
    found: dict[int, list[Noun]] = {}
    waiting: list[Depiction] = []
    drawn = 0
    with tqdm(total=len(depictions), desc=f"removal, {split}", unit="scene") as progress:
        for number, depiction in enumerate(depictions.values(), 1):
            waiting.append(depiction)
            drawn += 1 + len(depiction.objects)
            if drawn >= LARGEST_BATCH or number == len(depictions):
                for one, drops in zip(waiting, _drops(subject, waiting, captions), strict=True):
                    words = [subject.vocabulary.words[i] for i in captions[one.image_id].word_ids]
                    found[one.image_id] = list(_nouns(words, one, drops))
                progress.update(len(waiting))
                waiting, drawn = [], 0
    return found


def _nouns(words: Sequence[str], depiction: Depiction, drops: Tensor) -> Iterator[Noun]:
    for word in scene_words(words):
        lost = drops[word.position]
        if word.kind == "noun" and lost.max() > 0:
            yield Noun(word.position, depiction.meant(word), lost == lost.max())


def _drops(
    subject: Subject, depictions: Sequence[Depiction], captions: Mapping[int, StoredRelevance]
) -> Iterator[Tensor]:
    """Yield, for each scene, the log-probability (T, K) that each word loses with each object."""
    pictures: list[NDArray[np.uint8]] = []
    rows: list[Tensor] = []
    ends: list[int] = []
    for depiction in depictions:
        recipe = depiction.recipe
        assert recipe is not None
        for removed in (None, *range(len(recipe.objects))):
            pictures.append(render(recipe, without=removed))
            rows.append(torch.tensor(captions[depiction.image_id].word_ids))
        ends.append(len(pictures))
    word_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    log_probs = word_log_probs(subject, subject.see(pictures)[1], word_ids)
    for first, last in pairwise([0, *ends]):
        scene = log_probs[first:last, : len(rows[first])]
        yield (scene[0] - scene[1:]).T


def word_log_probs(subject: Subject, features: Features, word_ids: Tensor) -> Tensor:
    """Return the log-probability (B, T) of each word of given captions (B, T) of images."""
    inputs = subject.inputs(word_ids)[:, :-1]
    with torch.no_grad():
        hidden = subject.captioner.hidden(features, inputs)
        log_probs = subject.captioner.readout(hidden.values).log_softmax(-1)
    return log_probs.gather(2, word_ids.unsqueeze(2)).squeeze(2)


def _agreement(maps: Tensor, objects: Tensor, nouns: Sequence[Noun]) -> Iterator[tuple[str, float]]:
    """Yield the kind of noun and whether the most relevant of the `objects` is the cause."""
    if nouns:
        chosen = maps[[noun.position for noun in nouns]]
        causal = torch.stack([noun.causal for noun in nouns])
        hits = choice(object_relevance(chosen, objects), causal)
        for noun, value in zip(nouns, hits, strict=True):
            yield KINDS[bool(noun.meant.any())], float(value)
