"""Relevance of objects: what all visual features of an object together speak for a word.

Features are one object that have the class of a detector in common, that overlap, or that the same
mask covers. The relevance of an object is the sum over its features, that of a caption the sum over
its words. Objects by class and by overlap need regions; masks need to be known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capscope.benchmarks.context import Context, ExplainedCaption, explained_captions
from capscope.benchmarks.depiction import (
    Depiction,
    WordReader,
    open_depictions,
    places_known,
    word_reader,
)
from capscope.benchmarks.ground_truth import maps_of
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.places import masks_on
from capscope.errors import CapscopeError
from capscope.explain.latent.objects import by_mask, grouped
from capscope.explain.store import StoredRelevance
from capscope.explain.words import Word
from capscope.features.visual import Features

GROUPINGS = ("class", "overlap", "mask")
CONTROL = "random"
WHOLE = "(caption)"
"""In place of a word: all of them."""


class Objects(NamedTuple):
    """The objects of an image, by one grouping."""

    by: str
    labels: tuple[str, ...]
    """What each of K objects is; empty where nobody knows."""
    groups: Tensor
    """(K, N) bool: the visual features of each."""

    def relevance(self, maps: Tensor) -> Tensor:
        """Return what the objects get of maps (T, N): (T, K)."""
        return maps @ self.groups.to(maps).T


class ObjectRelevance(NamedTuple):
    """One row of the table: what one object speaks for one word, or for the caption."""

    explainer: str
    split: str
    image_id: int
    by: str
    object: int
    label: str
    features: int
    position: int
    """Of the word, from 0; -1 for the whole caption."""
    word: str
    relevance: float


class Finder:
    """Finds the objects of images, by all groupings that there are facts for.

    Parameters
    ----------
    context : Context
    settings : mapping
        ``by``: groupings. ``overlap``: intersection over union from which regions are one object.
        ``covered``: least share of a feature that the mask of its object covers.
    """

    def __init__(self, context: Context, settings: Mapping[str, Any]) -> None:
        unknown = set(settings["by"]) - set(GROUPINGS)
        if unknown:
            raise CapscopeError(
                f"benchmarks.latent_objects.by has {', '.join(sorted(unknown))}; allowed: "
                f"{', '.join(GROUPINGS)}"
            )
        self.context, self.settings = context, settings
        self.depictions: dict[int, Depiction] = {}
        self.reader: WordReader = word_reader(context.data_dir)
        if "mask" in settings["by"] and places_known(context.data_dir):
            ids = sorted({int(one) for store in context.stores for one in store.image_ids})
            size = max(store.image_size for store in context.stores)
            self.depictions, self.reader = open_depictions(
                context.data_dir, context.dataset, ids, size
            )
        regions = context.features.kind == "regions"
        self.names: list[str] = context.features.attributes.get("class_names") or []
        self._by_box = [by for by in settings["by"] if by != "mask"] if regions else []
        if not self.names:
            self._by_box = [by for by in self._by_box if by != "class"]

    def __call__(self, image_id: int, stored: StoredRelevance) -> list[Objects]:
        """Return the objects of one image by each grouping, in the order of the settings."""
        found = {}
        if self._by_box:
            own = self.context.features.read([image_id])
            found = {by: self._boxed(own, by) for by in self._by_box}
        if self.depictions:
            depiction, shape = self.depictions[image_id], stored.grid.shape[1:]
            covered = masks_on(depiction.masks, shape, stored.boxes).flatten(1)
            labels = tuple(thing.label for thing in depiction.objects)
            found["mask"] = Objects("mask", labels, by_mask(covered, self.settings["covered"]))
        return [found[by] for by in self.settings["by"] if by in found]

    def _boxed(self, own: Features, by: str) -> Objects:
        among = grouped(own, by, self.settings["overlap"])
        count = own.cells.shape[1]
        there = own.valid[0] if own.valid is not None else torch.ones(count, dtype=torch.bool)
        groups = torch.zeros(len(among), count, dtype=torch.bool)
        groups[:, there] = among
        labels = [""] * len(groups)
        if own.class_ids is not None and self.names:
            best = own.class_ids[0, groups.int().argmax(1)].tolist()
            labels = [self.names[one] if one >= 0 else "" for one in best]
        return Objects(by, tuple(labels), groups)


def object_rows(context: Context, settings: Mapping[str, Any]) -> Iterator[ObjectRelevance]:
    """Yield what every object of every explained image speaks for every word and the caption.

    Parameters
    ----------
    context : Context
    settings : mapping
        As of `Finder`, and ``images``: captions of each split.
    """
    finder = Finder(context, settings)
    for caption in explained_captions(context.stores, "objects", settings["images"]):
        words = [context.vocabulary.words[word_id] for word_id in caption.word_ids]
        first = next(iter(caption.by_explainer.values()))
        for objects in finder(caption.image_id, first):
            sizes = objects.groups.sum(1).tolist()
            for name, stored in caption.by_explainer.items():
                of_words = objects.relevance(stored.grid.flatten(1))
                values = torch.cat([of_words, of_words.sum(0, keepdim=True)]).T.tolist()
                for number, (label, size) in enumerate(zip(objects.labels, sizes, strict=True)):
                    key = (name, caption.split, caption.image_id, objects.by, number, label, size)
                    for position, word in [*enumerate(words), (-1, WHOLE)]:
                        yield ObjectRelevance(*key, position, word, values[number][position])


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_latent_objects`."""
    settings = context.settings["latent_objects"]
    return measure_latent_objects(context, settings, **context.bootstrap)


def measure_latent_objects(
    context: Context, settings: Mapping[str, Any], *, resamples: int, seed: int
) -> list[Measurement]:
    """Return how much of the relevance the objects get that the words name.

    Parameters
    ----------
    context : Context
    settings : mapping
        As of `object_rows`.

    Returns
    -------
    list of Measurement
        Of nouns that name some of the image's objects, but not all; and of whole captions (kind of
        word ``caption``), whose objects are those that any noun names. ``choice class``: a named
        object gets the most relevance, ties count in part. ``share class``: share of the positive
        relevance of all objects that named ones get.
    """
    finder, scores = Finder(context, settings), Scores()
    for caption in explained_captions(context.stores, "objects", settings["images"]):
        words = [context.vocabulary.words[word_id] for word_id in caption.word_ids]
        nouns = [word for word in finder.reader(words) if word.kind == "noun"]
        first = next(iter(caption.by_explainer.values()))
        for objects in finder(caption.image_id, first):
            cases = list(_cases(objects, nouns))
            for name in [*caption.by_explainer, CONTROL]:
                found = _scores(objects, cases, caption, name, seed)
                for kind, measure, value in found:
                    key = partial(Key, name, "grid", kind, caption.split)
                    scores.add(key(f"{measure} {objects.by}"), caption.image_id, value)
    return scores.measurements(resamples, seed)


class _Case(NamedTuple):
    """One noun, or the caption (no position), and which objects (K,) bool it names."""

    kind: str
    position: int | None
    named: Tensor


def _cases(objects: Objects, nouns: Sequence[Word]) -> Iterator[_Case]:
    about = [set(noun.about) for noun in nouns]
    asked = [("noun", noun.position, one) for noun, one in zip(nouns, about, strict=True)]
    for kind, position, wanted in [*asked, ("caption", None, set().union(*about))]:
        named = torch.tensor([label in wanted for label in objects.labels], dtype=torch.bool)
        named &= objects.groups.any(1)
        if named.any() and not named[objects.groups.any(1)].all():
            yield _Case(kind, position, named)


def _scores(
    objects: Objects, cases: Sequence[_Case], caption: ExplainedCaption, name: str, seed: int
) -> Iterator[tuple[str, str, float]]:
    """Yield kind of word, measure and value."""
    if not cases:
        return
    stored = caption.by_explainer.get(name, next(iter(caption.by_explainer.values())))
    of_words = objects.relevance(maps_of(name, stored, seed)["grid"].flatten(1))
    seen = objects.groups.any(1)
    for case in cases:
        relevance = of_words.sum(0) if case.position is None else of_words[case.position]
        largest = (relevance == relevance[seen].max()) & seen
        yield case.kind, "choice", float((largest & case.named).sum() / largest.sum())
        positive = relevance.clamp(min=0)
        if positive.any():
            yield case.kind, "share", float(positive[case.named].sum() / positive.sum())
