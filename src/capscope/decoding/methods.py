"""The ways to caption a batch of images, by the ``decoding`` section of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.beam import LengthPenalty, beam_search, length_divisor
from capscope.decoding.diverse import diverse_beam_search
from capscope.decoding.ended_beam import ended_beam_search
from capscope.decoding.endings import strip_bad_endings
from capscope.decoding.hypothesis import Hypothesis
from capscope.decoding.repetition import Trigrams, Unrepeating
from capscope.decoding.sampling import Feed, greedy_search, sample_search
from capscope.decoding.slots import slot_search
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Captioner

AND = frozenset({"and"})


@dataclass(frozen=True)
class Decoding:
    """The ``decoding`` section of the parameters; keys that it lacks keep these defaults.

    Attributes
    ----------
    method : {"greedy", "beam", "diverse_beam", "sample"}
    beam : int
        Live hypotheses of each image, or of each group.
    max_length : int
        Words of a caption; under `parity` ids with the start.
    captions : int
        How many captions ``beam`` and ``sample`` return for each image.
    length_normalisation : float
        Beams rank captions by sum(log p) / (words with the end) ** this.
    length_penalty : {"power", "wu"}
        ``wu`` divides by ((5 + words with the end) / 6) ** length_normalisation instead.
    word_twice, trigrams : bool, str
        Of all methods; see `Unrepeating`.
    groups, penalty : int, float
        Of ``diverse_beam``.
    temperature, top_k, nucleus, seed : float, int or None, float or None, int
        Of ``sample``; see `capscope.decoding.sampling.probabilities`.
    bad_endings : {"keep", "strip", "strip_without_and"}
        Whether a caption loses trailing words that no sentence ends with.
    parity : bool
        The published rules; special words may be said, but are not shown.
    published : {"lrp_ic", "spatial", "difnet"}
        Whose: those of Sun et al. (2022), or those of the spatial transformer, where beams search
        by `slot_search` (with ``captions`` or ``groups`` they return all that they kept), or those
        of DIFNet, by `ended_beam_search`, the end being one of `max_length` words.
    collapse : bool
        A word that follows itself is shown once, as DIFNet's program evaluates captions.
    feed : {"words", "start"}
        ``start`` feeds the start at every step, as the published sampling of the attention LSTM;
        of ``greedy`` only.
    """

    method: str = "beam"
    beam: int = 3
    max_length: int = 20
    captions: int = 1
    length_normalisation: float = 0.0
    groups: int = 3
    penalty: float = 0.5
    temperature: float = 1.0
    top_k: int | None = None
    nucleus: float | None = None
    seed: int = 1
    bad_endings: str = "keep"
    parity: bool = False
    published: str = "lrp_ic"
    length_penalty: LengthPenalty = "power"
    word_twice: bool = True
    trigrams: Trigrams = "allow"
    feed: Feed = "words"
    collapse: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Decoding:
        """Read the section; the batch size is for those who make batches."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{key: value for key, value in settings.items() if key in names})


Search = Callable[
    [Captioner, Features, Decoding, Sequence[int], Mapping[str, Any]], list[list[Hypothesis]]
]


def search_images(
    captioner: Captioner,
    features: Features,
    vocabulary: Vocabulary,
    settings: Mapping[str, Any],
    image_ids: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Caption a batch of images as `settings` say; no caption has an unknown word.

    Parameters
    ----------
    settings : mapping
        See `Decoding`.
    image_ids : sequence of int or None
        Each image draws by random numbers of its own, from the seed and its id; None counts them
        from 0.

    Returns
    -------
    list of list of Hypothesis
        For each image its captions, the one to show first: the best, or the first one drawn.
        Under parity, diverse beam search keeps the order of its groups.
    """
    decoding = Decoding.of(settings)
    if decoding.feed == "start" and decoding.method != "greedy":
        raise CapscopeError(
            f"decoding.feed: start goes with method: greedy, not {decoding.method}: what is fed "
            "does not tell hypotheses apart"
        )
    common = {
        "start": vocabulary.pad if vocabulary.start is None else vocabulary.start,
        "end": vocabulary.end,
        "max_length": decoding.max_length,
        "forbidden": () if decoding.parity else sorted(vocabulary.special_ids - {vocabulary.end}),
    }
    if not decoding.word_twice or decoding.trigrams != "allow":
        captioner = Unrepeating(
            captioner, word_twice=decoding.word_twice, trigrams=decoding.trigrams
        )
    ids = range(len(features.cells)) if image_ids is None else image_ids
    found = SEARCHES[decoding.method](captioner, features, decoding, ids, common)
    return [[_shown(one, vocabulary, decoding) for one in hypotheses] for hypotheses in found]


def _greedy(
    captioner: Captioner,
    features: Features,
    decoding: Decoding,
    image_ids: Sequence[int],
    common: Mapping[str, Any],
) -> list[list[Hypothesis]]:
    # Published by Sun et al.: ids with the start.
    longest = decoding.max_length - (decoding.parity and decoding.published == "lrp_ic")
    settings = {**common, "max_length": longest, "feed": decoding.feed}
    found = greedy_search(captioner, features, **settings)
    return [[hypothesis] for hypothesis in found]


def _beam(
    captioner: Captioner,
    features: Features,
    decoding: Decoding,
    image_ids: Sequence[int],
    common: Mapping[str, Any],
) -> list[list[Hypothesis]]:
    if decoding.parity and decoding.published == "spatial":
        return _slots(captioner, features, decoding, common, 1)
    if decoding.parity and decoding.published == "difnet":
        found = ended_beam_search(
            captioner,
            features,
            start=common["start"],
            end=common["end"],
            beam=decoding.beam,
            steps=decoding.max_length,
            forbidden=common["forbidden"],
        )
        return [image[: decoding.captions] for image in found.hypotheses(common["end"])]
    return beam_search(
        captioner,
        features,
        beam=decoding.beam,
        keep=decoding.captions,
        length_normalisation=decoding.length_normalisation,
        length_penalty=decoding.length_penalty,
        parity=decoding.parity,
        **common,
    )


def _diverse_beam(
    captioner: Captioner,
    features: Features,
    decoding: Decoding,
    image_ids: Sequence[int],
    common: Mapping[str, Any],
) -> list[list[Hypothesis]]:
    if decoding.parity and decoding.published == "spatial":
        return _slots(captioner, features, decoding, common, decoding.groups)
    found = diverse_beam_search(
        captioner,
        features,
        groups=decoding.groups,
        beam=decoding.beam,
        penalty=decoding.penalty,
        length_normalisation=decoding.length_normalisation,
        length_penalty=decoding.length_penalty,
        parity=decoding.parity,
        **common,
    )
    if decoding.parity:
        return found
    return [sorted(image, key=lambda one: one.score, reverse=True) for image in found]


def _slots(
    captioner: Captioner,
    features: Features,
    decoding: Decoding,
    common: Mapping[str, Any],
    groups: int,
) -> list[list[Hypothesis]]:
    def divisor(length: int) -> float:
        exponent = decoding.length_normalisation
        return float(length_divisor(length, exponent, decoding.length_penalty))

    return slot_search(
        captioner,
        features,
        start=common["start"],
        end=common["end"],
        beam=decoding.beam,
        max_length=decoding.max_length,
        groups=groups,
        penalty=decoding.penalty,
        length_penalty=divisor,
    )


def _sample(
    captioner: Captioner,
    features: Features,
    decoding: Decoding,
    image_ids: Sequence[int],
    common: Mapping[str, Any],
) -> list[list[Hypothesis]]:
    size = (decoding.captions, decoding.max_length)
    numbers = [np.random.default_rng([decoding.seed, i % 2**64]).random(size) for i in image_ids]
    return sample_search(
        captioner,
        features,
        uniform=torch.from_numpy(np.stack(numbers)).to(features.cells.device),
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        nucleus=decoding.nucleus,
        **common,
    )


SEARCHES: dict[str, Search] = {
    "greedy": _greedy,
    "beam": _beam,
    "diverse_beam": _diverse_beam,
    "sample": _sample,
}


def collapsed(places: Sequence[int], words: Sequence[Any]) -> list[int]:
    """Return those of the places of `words` whose word is not the one before."""
    pairs = zip(places, words, [None, *words], strict=False)
    return [place for place, word, before in pairs if word != before]


def _shown(hypothesis: Hypothesis, vocabulary: Vocabulary, decoding: Decoding) -> Hypothesis:
    """Return a caption without special words and, if asked, without a bad ending."""
    kept = [i for i, word in enumerate(hypothesis.word_ids) if word not in vocabulary.special_ids]
    tail = hypothesis.log_probs[len(hypothesis.word_ids) :]
    if decoding.collapse:
        kept = collapsed(kept, [hypothesis.word_ids[i] for i in kept])
    if decoding.bad_endings != "keep" and kept:
        sentence = " ".join(vocabulary.words[hypothesis.word_ids[i]] for i in kept)
        also = AND if decoding.bad_endings == "strip" else frozenset()
        length = len(strip_bad_endings(sentence, also=also).split(" "))
        if length < len(kept):
            kept, tail = kept[:length], ()
    if len(kept) == len(hypothesis.word_ids):
        return hypothesis
    return replace(
        hypothesis,
        word_ids=tuple(hypothesis.word_ids[i] for i in kept),
        log_probs=(*(hypothesis.log_probs[i] for i in kept), *tail),
        ended=bool(tail),
    )
