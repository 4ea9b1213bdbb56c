"""Hallucination: does relevance tell true object words from hallucinated ones?

An object word is true if the image shows the object or a reference names it. Statistics of a
word's map, such as its maximum, are compared between true and hallucinated words: the measure is
the area under the ROC curve, the chance that a true word has the higher value, one half if the
statistic knows nothing.

Source: Sun et al. (2022); `published.published_auc` aggregates as they do. Here every word counts,
and the captioner's own confidence is beside it: what the probability of a word says already needs
no explanation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from capscope.benchmarks.context import Context, ExplainedCaption, explained_captions
from capscope.benchmarks.depiction import WordReader, word_reader
from capscope.benchmarks.ground_truth import CONTROLS, maps_of
from capscope.benchmarks.judged import shown_names
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.benchmarks.parts import repeated
from capscope.benchmarks.places import present
from capscope.benchmarks.probability import word_probabilities
from capscope.benchmarks.roc import Judged, auc_with_interval
from capscope.data.annotations import INSTANCES_FILE
from capscope.data.entities import Instances, read_instances
from capscope.features.visual import Features
from capscope.models.adaptive import Adaptive
from capscope.models.captioner import Captioner
from capscope.models.gridtd import GridTD

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def statistics(maps: Tensor, quantiles: Sequence[float] = QUANTILES) -> dict[str, Tensor]:
    """Return what is known of signed maps (n, ...), each (n,).

    ``mean``, ``mean_abs``, ``mean_pos`` (of positive entries; 0 if there are none), ``max``, and
    ``quantile <q>``, linear between entries.
    """
    flat = maps.flatten(1).double()
    positive = flat > 0
    share = torch.tensor(list(quantiles), dtype=torch.float64)
    found = {
        "mean": flat.mean(1),
        "mean_abs": flat.abs().mean(1),
        "mean_pos": flat.clamp(min=0).sum(1) / positive.sum(1).clamp(min=1),
        "max": flat.amax(1),
    }
    by_share = torch.quantile(flat, share, dim=1)
    return found | {f"quantile {q:g}": row for q, row in zip(quantiles, by_share, strict=True)}


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_hallucination`."""
    path = context.data_dir / INSTANCES_FILE
    boxes = read_instances(path) if path.exists() else None
    reader = word_reader(context.data_dir)
    return measure_hallucination(context, reader, boxes, **context.bootstrap)


def measure_hallucination(
    context: Context, reader: WordReader, boxes: Instances | None, *, resamples: int, seed: int
) -> list[Measurement]:
    """Return how well statistics of relevance tell true object words from hallucinated ones.

    Parameters
    ----------
    context : Context
    reader : WordReader
        Finds object words in captions and references.
    boxes : Instances or None
        What images show; without, references alone decide.
    resamples, seed : int

    Returns
    -------
    list of Measurement
        Measures are the names of `statistics`, and ``image share``: how much of the absolute
        relevance went to the image and not to preceding words. The rows of ``captioner`` say what
        the word's ``probability`` knows, and ``1 - beta`` of captioners with a visual sentinel
        (see `looked_at_image`), and which share of words is ``hallucinated``, which is
        no area. ``n`` counts words; the area is NaN if all of them are true.
    """
    judged: dict[tuple[str, str, str, str], list[Judged]] = defaultdict(list)
    shares = Scores()
    for caption in explained_captions(context.stores, "hallucination"):
        truth = _truth(context, reader, boxes, caption)
        key = Key("captioner", "words", "noun", caption.split, "hallucinated")
        for true in truth.values():
            shares.add(key, caption.image_id, float(not true))
        for (name, resolution, measure), values in _values(context, caption, list(truth), seed):
            for true, value in zip(truth.values(), values, strict=True):
                judged[name, resolution, caption.split, measure].append(
                    Judged(caption.image_id, true, value)
                )
    rows = shares.measurements(resamples, seed)
    for (name, resolution, split, measure), words in judged.items():
        found = auc_with_interval(words, resamples, seed)
        rows.append(Measurement(name, resolution, "noun", split, measure, *found, len(words)))
    return rows


def _truth(
    context: Context, reader: WordReader, boxes: Instances | None, caption: ExplainedCaption
) -> dict[int, bool]:
    """Return the positions of object words, and whether each is true."""
    shown = shown_names(context.dataset.by_id(caption.image_id), reader, boxes)
    spoken = [context.vocabulary.words[word_id] for word_id in caption.word_ids]
    nouns = [word for word in reader(spoken) if word.kind == "noun"]
    return {word.position: bool(shown & set(word.about)) for word in nouns}


def _values(
    context: Context, caption: ExplainedCaption, positions: list[int], seed: int
) -> Iterator[tuple[tuple[str, str, str], list[float]]]:
    """Yield explainer, resolution and measure with the values of the words at `positions`."""
    if not positions:
        return
    first = next(iter(caption.by_explainer.values()))
    for name in [*caption.by_explainer, *CONTROLS]:
        stored = caption.by_explainer.get(name, first)
        for resolution, maps in maps_of(name, stored, seed).items():
            chosen = maps[positions].flatten(1)
            if resolution == "grid":
                chosen = chosen[:, present(stored)]
            for measure, values in statistics(chosen).items():
                yield (name, resolution, measure), values.tolist()
        if name not in CONTROLS and stored.words is not None:
            image = stored.grid[positions].flatten(1).abs().sum(1)
            whole = image + stored.words[positions].abs().sum(1)
            share = image / whole.clamp(min=torch.finfo(whole.dtype).tiny)
            yield (name, "grid", "image share"), share.tolist()
    captioner, own = context.subject.captioner, context.features.read([caption.image_id])
    inputs = context.subject.inputs(torch.tensor([caption.word_ids]))
    ids = inputs[0].tolist()
    confidence = word_probabilities(
        captioner,
        partial(repeated, own),
        [ids[: position + 1] for position in positions],
        [ids[position + 1] for position in positions],
    )
    yield ("captioner", "words", "probability"), confidence.tolist()
    looked = looked_at_image(captioner, own, inputs[:, :-1])
    if looked is not None:
        yield ("captioner", "words", "1 - beta"), looked[positions].tolist()


def looked_at_image(captioner: Captioner, features: Features, word_ids: Tensor) -> Tensor | None:
    """Return 1 - beta (T,): how much adaptive attention looks at the image, not the sentinel.

    Parameters
    ----------
    captioner : Captioner
    features : Features
        Of one image.
    word_ids : Tensor (1, T)
        The inputs.

    Returns
    -------
    Tensor or None
        None for a captioner without a sentinel.
    """
    with torch.no_grad():
        if isinstance(captioner, GridTD):
            moments = captioner.unroll(features, word_ids)
            beta = torch.cat([moment.beta.flatten() for moment in moments])
        elif isinstance(captioner, Adaptive):
            beta = captioner.unroll(features, word_ids).beta.flatten()
        else:
            return None
    return 1 - beta
