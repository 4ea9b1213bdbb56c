"""Ablation as Sun et al. (2022) do it: take away what is most relevant, and look at the word.

*Patches*: the most relevant patches of the image get the mean colour, and the image is captioned
again. Does the new caption lack the word, and if it has it, how much less probable is it there?
*Words*: the most relevant preceding words are left out, and the captioner is asked how much less
probable the word is after what remains.

Relevance is signed, so what is taken away is what speaks for a word, not against it; with few
positive parts the least negative ones follow. Each word is judged by its own map: the published
program adds up the LRP maps of all words before (pass their cumulative sum for parity), and asks a
captioner with a doubled bias (`capscope.models.published.with_doubled_bias`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capscope.benchmarks.context import Context, ExplainedCaption, explained_captions
from capscope.benchmarks.depiction import WordReader, word_reader
from capscope.benchmarks.ground_truth import CONTROLS, maps_of
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.parts import Words, repeated
from capscope.benchmarks.probability import word_probabilities
from capscope.benchmarks.published import (
    DELETED_WORDS,
    EARLIEST_PATCHES,
    EARLIEST_WORDS,
    OBJECT,
    STOP,
)
from capscope.data.images import read_image
from capscope.data.wordlists import stop_words
from capscope.decoding.captions import caption_images
from capscope.explain.raster import sum_pool
from capscope.features.visual import Features
from capscope.models.captioner import Captioner

LARGEST_BATCH = 64
"""Masked images that go through the image network at once."""
Look = Callable[[Tensor], Features]
Recaption = Callable[[Features], list[list[int]]]


def patch_masks(maps: Tensor, size: int, patch: int, count: int) -> Tensor:
    """Return which pixels stay when the most relevant patches are taken away.

    Parameters
    ----------
    maps : Tensor (n, h, w)
        Relevance, at the resolution of the image or below.
    size : int
        Width and height S of the image.
    patch : int
        Width of a patch in pixels; patches do not overlap.
    count : int
        Patches that are taken away, by the sum of their signed relevance. Ties go in reading
        order.

    Returns
    -------
    Tensor (n, S, S) bool
    """
    side = max(1, size // patch)
    sums = sum_pool(maps, side, side).flatten(1)
    chosen = sums.argsort(dim=1, descending=True, stable=True)[:, :count]
    stays = torch.ones_like(sums, dtype=torch.bool).scatter(1, chosen, False)
    places = torch.arange(size) * side // size
    return stays.view(-1, side, side)[:, places][:, :, places]


def ablate_patches(
    images: Tensor,
    masks: Tensor,
    word_ids: Sequence[int],
    start: int,
    captioner: Captioner,
    look: Look,
    recaption: Recaption,
) -> list[float | None]:
    """Return how probable each word is in the new caption of its masked image.

    Parameters
    ----------
    images : Tensor (n, 3, S, S)
        Normalised, so that 0 is the mean colour.
    masks : Tensor (n, S, S) bool
        From `patch_masks`.
    word_ids : sequence (n) of int
    start : int
        Id of the start token.
    captioner : Captioner
        Whose probabilities are asked.
    look : callable
        From images to visual features.
    recaption : callable
        From the features of B images to the word ids of their captions.

    Returns
    -------
    list of float or None
        The probability where the word first stands; None if the new caption lacks it.
    """
    found: list[float | None] = []
    for first in range(0, len(images), LARGEST_BATCH):
        rows = slice(first, first + LARGEST_BATCH)
        features = look(images[rows] * masks[rows].unsqueeze(1))
        asked = word_ids[rows]
        captions = recaption(features)
        present = [row for row, word in enumerate(asked) if word in captions[row]]
        prefixes = [[start, *captions[row][: captions[row].index(asked[row])]] for row in present]
        chosen = features.select(torch.tensor(present, dtype=torch.long))
        answers = word_probabilities(
            captioner, chosen.select, prefixes, [asked[row] for row in present]
        )
        by_row = dict(zip(present, answers.tolist(), strict=True))
        found += [by_row.get(row) for row in range(len(asked))]
    return found


class Deleted(NamedTuple):
    """A word, and the inputs before it that are left out."""

    position: int
    inputs: tuple[int, ...]
    """Places among the inputs; 0 is the start."""


def most_relevant_inputs(relevance: Tensor, position: int, count: int = DELETED_WORDS) -> Deleted:
    """Return the preceding words to leave out: the largest signed relevance of inputs 1 to t.

    Parameters
    ----------
    relevance : Tensor (T, T)
        Of inputs for words; the start is never left out.
    position : int
        The word t.
    """
    chosen = relevance[position, 1 : position + 1].argsort(descending=True, stable=True)[:count]
    return Deleted(position, tuple((chosen + 1).tolist()))


def ablate_words(
    captioner: Captioner, features: Features, ids: Sequence[int], deleted: Sequence[Deleted]
) -> list[float]:
    """Return how much probability words lose when preceding words are left out.

    Parameters
    ----------
    captioner : Captioner
    features : Features
        Of one image.
    ids : sequence of int
        The caption from the start token on.
    deleted : sequence of Deleted
    """
    whole = [list(ids[: one.position + 1]) for one in deleted]
    short = [
        [word_id for place, word_id in enumerate(prefix) if place not in one.inputs]
        for prefix, one in zip(whole, deleted, strict=True)
    ]
    asked = [ids[one.position + 1] for one in deleted]
    found = word_probabilities(captioner, partial(repeated, features), whole + short, asked * 2)
    before, after = found[: len(asked)], found[len(asked) :]
    return (before - after).tolist()


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_ablation`."""
    return measure_ablation(
        context, word_reader(context.data_dir), context.settings["ablation"], **context.bootstrap
    )


def measure_ablation(
    context: Context, reader: WordReader, settings: dict[str, Any], *, resamples: int, seed: int
) -> list[Measurement]:
    """Return what stop words and object words lose with the most relevant parts.

    Parameters
    ----------
    context : Context
    reader : WordReader
        Finds object words; stop words are those of the published list.
    settings : dict
        ``images``: captions of each split. ``words``: how many preceding words are left out.
        ``pixels``: take away patches of the image, too; each case is captioned again. ``patch``
        and ``patches``: width in pixels, and how many.
    resamples, seed : int

    Returns
    -------
    list of Measurement
        Resolution ``words``: ``drop``, the mean loss of probability of words with at least six
        before them, and ``not raised``, the share that lost some or kept all. Resolution
        ``pixels``: ``disappeared``, the share of object words that the new caption lacks, and
        ``drop`` and ``not raised`` of the others. Higher is better; ``random`` is chance.
    """
    scores = Scores()
    for caption in explained_captions(context.stores, "ablation", settings["images"]):
        spoken = [context.subject.vocabulary.words[word_id] for word_id in caption.word_ids]
        objects = [word.position for word in reader(spoken) if word.kind == "noun"]
        kinds = {place: STOP for place, word in enumerate(spoken) if word in stop_words()}
        kinds |= dict.fromkeys(objects, OBJECT)
        cases = list(_word_cases(context, caption, kinds, settings["words"], seed))
        if settings["pixels"]:
            cases += _patch_cases(context, caption, objects, settings, seed)
        for name, resolution, position, loss in cases:
            key = partial(Key, name, resolution, kinds[position], caption.split)
            if resolution == "pixels":
                scores.add(key("disappeared"), caption.image_id, float(loss is None))
            if loss is not None:
                scores.add(key("drop"), caption.image_id, loss)
                scores.add(key("not raised"), caption.image_id, float(loss >= 0))
    return scores.measurements(resamples, seed)


Case = tuple[str, str, int, float | None]
"""Explainer, resolution, position of the word, and what it lost; None if it disappeared."""


def _word_cases(
    context: Context, caption: ExplainedCaption, kinds: dict[int, str], count: int, seed: int
) -> Iterator[Case]:
    positions = [place for place in sorted(kinds) if place >= EARLIEST_WORDS]
    if not positions:
        return
    own = context.features.read([caption.image_id])
    words = Words(context.subject, own, caption.word_ids)
    first = next(iter(caption.by_explainer.values()))
    plans = {}
    for name in [*caption.by_explainer, *CONTROLS]:
        relevance = words.relevance(name, caption.by_explainer.get(name, first), seed)
        if relevance is not None:
            plans[name] = [most_relevant_inputs(relevance, place, count) for place in positions]
    every = [deleted for plan in plans.values() for deleted in plan]
    losses = ablate_words(context.subject.captioner, own, words.ids, every)
    names = [name for name, plan in plans.items() for _ in plan]
    for name, deleted, loss in zip(names, every, losses, strict=True):
        yield name, "words", deleted.position, loss


def _patch_cases(
    context: Context,
    caption: ExplainedCaption,
    objects: Sequence[int],
    settings: dict[str, Any],
    seed: int,
) -> Iterator[Case]:
    positions = [place for place in objects if place >= EARLIEST_PATCHES]
    if not positions:
        return
    subject = context.subject
    picture = read_image(context.dataset.path(context.dataset.by_id(caption.image_id)))
    image = subject.network.preprocess(picture)
    first = next(iter(caption.by_explainer.values()))
    masks = {}
    for name in [*caption.by_explainer, *CONTROLS]:
        maps = maps_of(name, caption.by_explainer.get(name, first), seed).get("pixels")
        if maps is not None:
            size, patch, count = image.shape[-1], settings["patch"], settings["patches"]
            masks[name] = patch_masks(maps[positions], size, patch, count)
    ids = subject.inputs(torch.tensor([caption.word_ids]))[0].tolist()
    asked = [ids[place + 1] for place in positions]
    features = context.features.read([caption.image_id])
    prefixes = [ids[: place + 1] for place in positions]
    whole = word_probabilities(subject.captioner, partial(repeated, features), prefixes, asked)
    after = ablate_patches(
        image.expand(len(masks) * len(positions), -1, -1, -1),
        torch.cat(list(masks.values())),
        asked * len(masks),
        ids[0],
        subject.captioner,
        subject.look,
        partial(_recaption, context),
    )
    before = dict(zip(positions, whole.tolist(), strict=True))
    cases = [(name, place) for name in masks for place in positions]
    for (name, place), new in zip(cases, after, strict=True):
        yield name, "pixels", place, None if new is None else before[place] - new


def _recaption(context: Context, features: Features) -> list[list[int]]:
    subject, settings = context.subject, context.params["decoding"]
    found = caption_images(subject.captioner, features, subject.vocabulary, settings)
    return [list(hypothesis.word_ids) for hypothesis in found]
