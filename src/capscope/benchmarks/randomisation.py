"""Randomisation: are the maps of a captioner that knows nothing different?

A map that stays the same when the captioner's weights are replaced by random numbers does not
explain the captioner; one that is the same for every noun of a caption does not explain the word.
The measure is Spearman's rank correlation of maps over visual features: 0 for maps that have
nothing in common, 1 for maps that order the features alike. Low is good, but noise is low, too: the
sanity check can only fail an explainer.

Source: J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from capscope.benchmarks.context import Context, ExplainedCaption, explained_captions
from capscope.benchmarks.depiction import WordReader, word_reader
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.places import present
from capscope.explain import explainer_class
from capscope.explain.controls import InitialDecoder, RandomDecoder
from capscope.explain.explainer import Explainer
from capscope.explain.store import Captions
from capscope.explain.words import Word

DRAWN = {"random weights": RandomDecoder, "initial weights": InitialDecoder}
"""Measures, and the controls that know how to draw the weights of a captioner anew."""


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's rank correlation of n pairs of maps, ties with their mean rank.

    Parameters
    ----------
    first, second : Tensor (n, N)

    Returns
    -------
    Tensor (n,) float64 in [-1, 1]; NaN where a map is constant.
    """
    ranks = [torch.from_numpy(rankdata(maps.numpy(), axis=1)) for maps in (first, second)]
    a, b = (rank - rank.mean(1, keepdim=True) for rank in ranks)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_randomisation`."""
    return measure_randomisation(
        context,
        word_reader(context.data_dir),
        images=context.settings["randomisation_images"],
        **context.bootstrap,
    )


def measure_randomisation(
    context: Context, reader: WordReader, *, images: int, resamples: int, seed: int
) -> list[Measurement]:
    """Compare the maps of nouns with those of captioners whose weights were drawn anew.

    Parameters
    ----------
    context : Context
    reader : WordReader
        Finds nouns.
    images : int
        Captions of each split, the first ones.
    resamples, seed : int

    Returns
    -------
    list of Measurement
        Resolution ``grid``. ``random weights`` and ``initial weights``: the rank correlation with
        the map that the same explainer gives of a captioner with random weights as large as the
        trained ones, or with weights as before training; ``... absolute`` that of absolute values,
        for explainers with a sign. ``another noun``: the rank correlation of the maps of two nouns
        of a caption that name different things. ``n`` counts words or pairs; constant maps are
        left out.
    """
    scores = Scores()
    drawn = {split: _redrawn(context, split, images) for split in _splits(context)}
    for caption in explained_captions(context.stores, "randomisation", images):
        spoken = [context.vocabulary.words[word_id] for word_id in caption.word_ids]
        nouns = [word for word in reader(spoken) if word.kind == "noun"]
        for name, measure, values in _values(caption, nouns, drawn[caption.split]):
            key = Key(name, "grid", "noun", caption.split, measure)
            for value in values[~values.isnan()].tolist():
                scores.add(key, caption.image_id, value)
    return scores.measurements(resamples, seed)


def _splits(context: Context) -> list[str]:
    return list(dict.fromkeys(store.split for store in context.stores))


Redrawn = dict[tuple[str, str], tuple[bool, dict[int, Tensor]]]
"""By explainer and measure: whether maps have a sign, and maps (T, N) by image id."""


def _redrawn(context: Context, split: str, images: int) -> Redrawn:
    """Explain captions of a split for captioners whose weights were drawn anew."""
    settings = context.params["explanations"]
    stores = [store for store in context.stores if store.split == split]
    captions = stores[0].captions(images)
    found: Redrawn = {}
    for measure, control in DRAWN.items():
        subject = replace(context.subject, captioner=control(context.subject).explained())
        for name in (store.explainer for store in stores):
            kind = explainer_class(name)
            if not issubclass(kind, RandomDecoder):
                explainer = kind(subject, settings["epsilon"], steps=settings["steps"])
                maps = _explained(context, explainer, captions, settings["batch_size"])
                found[name, measure] = explainer.sign == "signed", dict(maps)
    return found


def _explained(
    context: Context, explainer: Explainer, captions: Captions, batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield image ids and maps (T, N) over visual features, captions of similar length together."""
    order = np.argsort(captions.lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        lengths = torch.from_numpy(captions.lengths[rows]).long()
        word_ids = torch.from_numpy(captions.word_ids[rows]).long()[:, : int(lengths.max())]
        features = context.features.read(captions.image_ids[rows])
        inputs = context.subject.inputs(word_ids)
        grid = explainer.explain(None, features, inputs, lengths).grid.detach()
        for image_id, maps, length in zip(captions.image_ids[rows], grid, lengths, strict=True):
            yield int(image_id), maps[:length]


def _values(
    caption: ExplainedCaption, nouns: Sequence[Word], drawn: Redrawn
) -> Iterator[tuple[str, str, Tensor]]:
    """Yield explainer, measure and rank correlations (n,)."""
    if not nouns:
        return
    positions = [word.position for word in nouns]
    pairs = [
        (one, other)
        for one, other in combinations(range(len(nouns)), 2)
        if not set(nouns[one].about) & set(nouns[other].about)
    ]
    for name, stored in caption.by_explainer.items():
        there = present(stored)
        own = stored.grid[positions].flatten(1)[:, there]
        if pairs:
            first, second = torch.tensor(pairs).T
            yield name, "another noun", rank_correlation(own[first], own[second])
        for measure in DRAWN:
            if (name, measure) in drawn:
                signed, maps = drawn[name, measure]
                theirs = maps[caption.image_id][positions][:, there]
                yield name, measure, rank_correlation(own, theirs)
                if signed:
                    absolute = rank_correlation(own.abs(), theirs.abs())
                    yield name, f"{measure} absolute", absolute
