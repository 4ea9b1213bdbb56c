"""Captions without repeated words and trigrams, against brute force over whole prefixes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from toy_captioner import toy

from capscope.decoding.beam import beam_search, length_divisor
from capscope.decoding.diverse import diverse_beam_search
from capscope.decoding.repetition import LOWERED, Unrepeating
from capscope.decoding.sampling import greedy_search
from capscope.decoding.slots import slot_search
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.captioner import Captioner

WORDS = {"start": 1, "end": 2}


def expected(log_probs: Tensor, said: list[int], word_twice: bool, trigrams: str) -> Tensor:
    """Change the log-probabilities (V,) of the word after `said`, word by word."""
    found = log_probs.clone()
    for word in range(len(found)):
        if said and not word_twice and word == said[-1]:
            found[word] = -torch.inf
        triples = [tuple(said[i : i + 3]) for i in range(len(said) - 2)]
        often = triples.count((*said[-2:], word)) if len(said) >= 2 else 0
        if trigrams == "lower":
            found[word] -= LOWERED * often
        elif trigrams == "forbid" and often:
            found[word] = -torch.inf
    return found


@pytest.mark.parametrize("trigrams", ["allow", "lower", "forbid"])
@pytest.mark.parametrize("word_twice", [True, False])
def test_steps_change_what_would_repeat_something(word_twice: bool, trigrams: str) -> None:
    captioner, features = toy(0, vocabulary_size=7)
    speaker = Unrepeating(captioner, word_twice=word_twice, trigrams=trigrams)  # type: ignore[arg-type]
    memory = speaker.encode(features)
    state, plain = speaker.start(memory, 2), captioner.start(memory, 2)
    said = torch.tensor([[1, 3, 4, 5, 3, 4, 5, 3, 4], [1, 3, 3, 3, 3, 3, 4, 3, 3]])
    said = said.expand(len(features.cells), 2, 9)
    changed = 0
    for t in range(said.shape[2]):
        step = speaker.step(said[:, :, t], state, memory)
        own = captioner.step(said[:, :, t], plain, memory)
        state, plain = step.state, own.state
        for row in range(2):
            prefix = said[0, row, 1 : t + 1].tolist()
            wanted = expected(own.log_probs[0, row], prefix, word_twice, trigrams)
            torch.testing.assert_close(step.log_probs[0, row], wanted)
            changed += int(not torch.equal(wanted, own.log_probs[0, row]))
    assert changed or (word_twice and trigrams == "allow")


def transformer(cross: str = "xlinear") -> tuple[Captioner, Features]:
    torch.manual_seed(2)
    captioner = build(
        "spatial",
        vocabulary_size=9,
        feature_size=5,
        hidden=8,
        heads=2,
        feed_forward=7,
        layers=2,
        grid=3,
        cross=cross,
    )
    with torch.no_grad():
        captioner.words.weight.mul_(6)
    boxes = torch.rand(4, 3, 2, 2).sort(2).values.flatten(2)
    return captioner.eval(), Features(torch.rand(4, 3, 5), boxes)


@pytest.mark.parametrize("cross", ["xlinear", "dot_product"])
@pytest.mark.slow
def test_every_search_of_a_transformer_is_the_same_together_and_alone(cross: str) -> None:
    captioner, features = transformer(cross)
    for speaker in (captioner, Unrepeating(captioner, word_twice=False, trigrams="forbid")):
        for search, options in (
            (beam_search, {"beam": 3, "keep": 3}),
            (beam_search, {"beam": 3, "keep": 2, "length_normalisation": 0.7}),
            (beam_search, {"beam": 3, "parity": True}),
            (diverse_beam_search, {"groups": 2, "beam": 2}),
            (diverse_beam_search, {"groups": 3, "beam": 2, "parity": True}),
            (slot_search, {"beam": 2, "groups": 3}),
            (slot_search, {"beam": 4}),
        ):
            settings = {**WORDS, "max_length": 7, **options}
            together = search(speaker, features, **settings)  # type: ignore[operator]
            for row, found in enumerate(together):
                one = features.select(slice(row, row + 1))
                (alone,) = search(speaker, one, **settings)  # type: ignore[operator]
                assert [h.word_ids for h in alone] == [h.word_ids for h in found]


def test_no_search_says_a_forbidden_repetition() -> None:
    captioner, features = transformer()
    with torch.no_grad():
        captioner.words.bias[WORDS["end"]] -= 9
    speaker = Unrepeating(captioner, word_twice=False, trigrams="forbid")
    settings = {**WORDS, "max_length": 12}
    found = [
        *greedy_search(speaker, features, **settings),
        *(h for image in beam_search(speaker, features, beam=3, **settings) for h in image),
        *(
            h
            for image in diverse_beam_search(speaker, features, groups=2, beam=2, **settings)
            for h in image
        ),
    ]
    assert any(len(h.word_ids) > 3 for h in found)
    for hypothesis in found:
        words = hypothesis.word_ids
        assert all(a != b for a, b in pairwise(words))
        triples = [words[i : i + 3] for i in range(len(words) - 2)]
        assert len(set(triples)) == len(triples)


def test_length_penalties_divide_as_their_equations_say() -> None:
    assert length_divisor(4, 0.5, "power") == 2
    assert length_divisor(7, 2.0, "wu") == 4
    captioner, features = transformer()
    for penalty in ("power", "wu"):
        for image in beam_search(
            captioner,
            features,
            beam=3,
            keep=3,
            max_length=6,
            length_normalisation=0.8,
            length_penalty=penalty,  # type: ignore[arg-type]
            **WORDS,
        ):
            for one in image:
                divisor = length_divisor(len(one.log_probs), 0.8, penalty)  # type: ignore[arg-type]
                assert one.score == pytest.approx(sum(one.log_probs) / divisor, abs=1e-5)


def test_an_unknown_way_with_trigrams_is_refused() -> None:
    captioner, _ = toy(0, vocabulary_size=7)
    with pytest.raises(CapscopeError, match="'block'; allowed: allow, lower, forbid"):
        Unrepeating(captioner, trigrams="block")  # type: ignore[arg-type]
