"""Deletion and insertion: how fast does a word go with what is relevant for it, and come back?

What an explainer finds most relevant is taken away step by step (deletion), or put back step by
step where there was nothing (insertion), and the captioner is asked how probable it still finds
the word. Measured are the areas under the two curves of probability over the share that is taken
away: a good explainer has a low deletion and a high insertion. What counts is the distance from
the control ``random``.

Source: V. Petsiuk et al., "RISE", BMVC 2018; here for each word of a caption, over visual features,
image patches and preceding words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from capscope.benchmarks.context import Context, ExplainedCaption, explained_captions
from capscope.benchmarks.depiction import WordReader, word_reader
from capscope.benchmarks.ground_truth import CONTROLS
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.parts import Cells, Parts, Patches, Words, nothing
from capscope.data.images import read_image
from capscope.explain.words import Word


class Question(NamedTuple):
    """What one explainer finds of the parts of an input for one word."""

    word: Word
    name: str
    relevance: Tensor
    """(N,)"""


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_deletion`."""
    return measure_deletion(
        context, word_reader(context.data_dir), context.settings["deletion"], **context.bootstrap
    )


def measure_deletion(
    context: Context, reader: WordReader, settings: dict[str, Any], *, resamples: int, seed: int
) -> list[Measurement]:
    """Return the areas under the curves, and the curves, of nouns.

    Parameters
    ----------
    context : Context
    reader : WordReader
        Finds the nouns of a caption.
    settings : dict
        ``images``: captions of each split. ``steps``: points of a curve beyond the first.
        ``baseline``: what stands for a deleted visual feature, see `parts.nothing`. ``pixels``:
        delete patches of the image, too, which takes a pass through the image network for each
        point; they are ``patch`` pixels wide.
    resamples, seed : int
        Of the bootstrap over images; `seed` also draws the noise and breaks ties.

    Returns
    -------
    list of Measurement
        Resolutions ``grid`` (visual features: cells or regions), ``pixels`` (patches) and
        ``words`` (preceding words). ``deletion`` and ``insertion`` are areas in [0, 1];
        ``deletion 0.25`` is the mean probability with a quarter deleted. The rows of
        ``captioner`` say how probable the word is with everything (``intact``) and with nothing
        (``empty``) of these parts.
    """
    scores = Scores()
    empty: dict[str, Tensor] = {}
    for store in context.stores:
        if store.split not in empty:
            ids = store.image_ids[: settings["images"]].tolist()
            empty[store.split] = nothing(context.features, ids, settings["baseline"])
    for caption in explained_captions(context.stores, "deletion", settings["images"]):
        spoken = [context.subject.vocabulary.words[word_id] for word_id in caption.word_ids]
        asked = [word for word in reader(spoken) if word.kind == "noun"]
        if not asked:
            continue
        for resolution, parts in _parts(context, caption, empty[caption.split], settings):
            questions = list(_questions(parts, caption, asked, seed))
            curves = both_curves(parts.ask, questions, settings["steps"], seed + caption.image_id)
            for question, (gone, back) in zip(questions, curves, strict=True):
                word, name, relevance = question
                key = partial(Key, name, resolution, word.kind, caption.split)
                for measure, curve in (("deletion", gone), ("insertion", back)):
                    scores.add(key(measure), caption.image_id, area(curve))
                    if resolution != "words":
                        for count, value in curve.items():
                            share = f"{measure} {count / len(relevance):.2f}"
                            scores.add(key(share), caption.image_id, value)
                if name == questions[0].name:
                    ends = {"intact": gone[0], "empty": back[0]}
                    for measure, value in ends.items():
                        control = Key("captioner", resolution, word.kind, caption.split, measure)
                        scores.add(control, caption.image_id, value)
    return scores.measurements(resamples, seed)


def _parts(
    context: Context, caption: ExplainedCaption, empty: Tensor, settings: dict[str, Any]
) -> Iterator[tuple[str, Parts]]:
    """Yield the resolutions, and what can be deleted there."""
    own = context.features.read([caption.image_id])
    subject, ids = context.subject, caption.word_ids
    yield "grid", Cells(subject, own, ids, empty)
    if settings["pixels"]:
        dataset = context.dataset
        picture = read_image(dataset.path(dataset.by_id(caption.image_id)))
        image = subject.network.preprocess(picture)
        yield "pixels", Patches(subject, own, ids, image, settings["patch"])
    yield "words", Words(subject, own, ids)


def _questions(
    parts: Parts, caption: ExplainedCaption, asked: Sequence[Word], seed: int
) -> Iterator[Question]:
    """Yield a question for every word that has such parts, and all that explains it."""
    first = next(iter(caption.by_explainer.values()))
    found = {
        name: parts.relevance(name, caption.by_explainer.get(name, first), seed)
        for name in [*caption.by_explainer, *CONTROLS]
    }
    for word in asked:
        for name, relevance in found.items():
            if relevance is not None:
                chosen = parts.of_word(relevance, word.position)
                if len(chosen):
                    yield Question(word, name, chosen)


Curve = dict[int, float]
"""Probability of a word by the number of parts that were deleted, or inserted; the last is all."""


def both_curves(
    ask: Callable[[Tensor, Sequence[int]], Tensor],
    questions: Sequence[Question],
    steps: int,
    seed: int,
) -> Iterator[tuple[Curve, Curve]]:
    """Yield the deletion curve and the insertion curve of each question.

    All points of all questions are asked in one go. What several questions ask about a word, the
    ends of the curves first of all, is asked once.

    Parameters
    ----------
    ask : callable
        From what is kept of the parts (n, N) bool and the positions of n words to their
        probabilities (n,). Words with fewer parts have False behind their last.
    questions : sequence of Question
    steps : int
        Points of a curve beyond the first.
    seed : int
        Of the order of parts with the same relevance.
    """
    places: dict[tuple[int, bytes], int] = {}
    rows: list[Tensor] = []
    positions: list[int] = []
    plans: list[tuple[list[int], list[list[int]]]] = []
    for word, _, relevance in questions:
        counts = points(len(relevance), steps)
        inserted = most_relevant(relevance, counts, seed)
        plan = []
        for kept in (~inserted, inserted):
            keys = [(word.position, row.numpy().tobytes()) for row in kept]
            for key, row in zip(keys, kept, strict=True):
                if key not in places:
                    places[key] = len(places)
                    rows.append(row)
                    positions.append(word.position)
            plan.append([places[key] for key in keys])
        plans.append((counts, plan))
    if rows:
        found = ask(pad_sequence(rows, batch_first=True), positions).tolist()
    for counts, (gone, back) in plans:
        yield (
            {count: found[place] for count, place in zip(counts, gone, strict=True)},
            {count: found[place] for count, place in zip(counts, back, strict=True)},
        )


def points(parts: int, steps: int) -> list[int]:
    """Return 0, ..., `parts` in at most `steps` steps, as even as whole numbers allow."""
    return sorted({round(parts * step / steps) for step in range(steps + 1)})


def most_relevant(relevance: Tensor, counts: Sequence[int], seed: int) -> Tensor:
    """Return which parts are the most relevant ones, by signed relevance: what speaks for a word.

    Parameters
    ----------
    relevance : Tensor (N,)
    counts : sequence (K) of int
        How many.
    seed : int
        Parts of the same relevance come in an order drawn with it.

    Returns
    -------
    Tensor (K, N) bool
    """
    drawn = torch.randperm(len(relevance), generator=torch.Generator().manual_seed(seed))
    order = drawn[relevance[drawn].argsort(descending=True, stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return rank < torch.tensor(counts).unsqueeze(1)


def area(curve: Curve) -> float:
    """Return the area under a curve over the share of parts, by trapezoids: in [0, 1]."""
    shares = torch.tensor(list(curve), dtype=torch.float64) / max(curve)
    return float(torch.trapezoid(torch.tensor(list(curve.values())).double(), shares))
