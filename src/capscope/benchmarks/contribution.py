"""What each source contributes to a word: vision, segments and language, by place and kind of word.

Relevance that is conserved, from 1 or from a logit, adds up over the sources of a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from capscope.benchmarks.context import Context
from capscope.benchmarks.measurement import Key, Measurement, Scores
from capscope.data.vocabulary import Vocabulary
from capscope.explain.store import RelevanceStore, StoredRelevance
from capscope.explain.words import scene_words

POSITIONS = 20
"""Places of words that are told apart."""
KINDS = {"noun": "object", "colour": "attribute", "size": "attribute", "relation": "relation"}
"""Kinds of words of scenes by what they say; all others are function words."""


def benchmark(context: Context) -> list[Measurement]:
    """Measure the explanations of a run; see `measure_contributions`."""
    scenes = context.params["dataset"]["reader"] == "scenes"
    vocabulary = context.vocabulary if scenes else None
    return measure_contributions(context.stores, vocabulary, **context.bootstrap)


def measure_contributions(
    stores: Sequence[RelevanceStore],
    vocabulary: Vocabulary | None = None,
    *,
    resamples: int,
    seed: int,
) -> list[Measurement]:
    """Say where the relevance of words comes from, for explainers that keep account of it.

    Measures and kinds of words are those of `add_contributions`. Shares of many words are those of
    their sums, each counted as positive.
    """
    scores = Scores()
    for store in tqdm(stores, desc="contribution", unit="store"):
        for row in range(len(store)):
            key = Key(store.explainer, "grid", "all", store.split, "vision")
            add_contributions(scores, key, store[row], vocabulary)
    return scores.measurements(resamples, seed)


def add_contributions(
    scores: Scores, key: Key, stored: StoredRelevance, vocabulary: Vocabulary | None = None
) -> None:
    """Add the shares of one caption's words to `scores`.

    Measures, in shares of what a word starts with: ``vision`` (cells and segments), ``language``
    (preceding words), ``segments`` (their part of vision), ``layer 1`` and so on (what layers of
    the decoder send to the image); ``entropy`` of the map of a word, in nats. Kinds of words: all,
    ``position t`` from 1 on, and with the vocabulary of scenes object, attribute, relation,
    function.
    """
    places = stored.conservation
    if "start" not in places or "words" not in places:
        return
    start = places["start"]
    measured = {"vision": places["grid"], "language": places["words"]}
    measured |= {name: part for name, part in places.items() if name.startswith("layer ")}
    if "segments" in places:
        measured["segments"] = places["segments"]
    entropies = entropy(stored.grid.flatten(1)).tolist()
    kinds = kinds_of(stored.word_ids, vocabulary)
    for t, kind in enumerate(kinds):
        if float(start[t]) == 0:
            continue
        for named in ("all", f"position {t + 1}", kind):
            if named is None:
                continue
            for measure, part in measured.items():
                scores.add(
                    key._replace(word_kind=named, measure=measure),
                    stored.image_id,
                    float(part[t] * start[t].sign()),
                    float(start[t].abs()),
                )
            scores.add(
                key._replace(word_kind=named, measure="entropy"), stored.image_id, entropies[t]
            )


def kinds_of(word_ids: Sequence[int], vocabulary: Vocabulary | None) -> list[str | None]:
    """Return the kind of each word of a caption; None where no lexicon tells."""
    if vocabulary is None:
        return [None] * len(word_ids)
    words = [vocabulary.words[word_id] for word_id in word_ids]
    kinds: list[str | None] = ["function"] * len(words)
    for word in scene_words(words):
        kinds[word.position] = KINDS.get(word.kind, "function")
    return kinds


def entropy(relevance: Tensor) -> Tensor:
    """Return the entropy (T,), in nats, of the absolute relevance (T, N) of each word."""
    shares = relevance.abs()
    shares = shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
    found: Tensor = torch.special.entr(shares).sum(1)
    return found


def mean_by_position(
    relevance: Sequence[Tensor], positions: int = POSITIONS, *, parity: bool = False
) -> NDArray[np.float64]:
    """Return the mean contribution of words at each position, (positions,).

    Parameters
    ----------
    relevance : sequence of Tensor (T, N)
        Of each caption; what is summed over N. Captions with a value that is no number are left
        out; what comes behind the last position, too.
    parity : bool
        As published: a caption that has no word at a position counts there with 0, so that curves
        fall with length (and captions of more than `positions` words are an error there).
    """
    sums, counts = np.zeros(positions), np.zeros(positions)
    for values in _numbers(relevance):
        totals = values.sum(1).double().numpy()[:positions]
        sums[: len(totals)] += totals
        counts += 1 if parity else np.arange(positions) < len(totals)
    means: NDArray[np.float64] = np.full(positions, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def entropy_by_position(
    relevance: Sequence[Tensor], positions: int = POSITIONS
) -> list[NDArray[np.float64]]:
    """Return the entropies of all captions' words at each position."""
    found: list[list[float]] = [[] for _ in range(positions)]
    for values in _numbers(relevance):
        for place, one in zip(found, entropy(values).tolist(), strict=False):
            place.append(one)
    return [np.array(place) for place in found]


def _numbers(relevance: Sequence[Tensor]) -> Iterator[Tensor]:
    return (values for values in relevance if not bool(values.isnan().any()))
