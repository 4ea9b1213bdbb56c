"""The published searches of the spatial transformer, its baseline and ensembles."""

from __future__ import annotations

import re

import pytest
import torch
from image_networks import Golden
from spatial_captioners import MODELS, SHOW_TELL, image, load, regions, show_tell, transformer
from torch import Tensor

from capscope.decoding.hypothesis import Hypothesis
from capscope.decoding.repetition import Unrepeating
from capscope.decoding.sampling import argmax, given, roll_out
from capscope.decoding.slots import slot_search
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.models.ensemble import Ensemble

REAL = -500.0
"""Entries with a lower score are ghosts."""
LAMBDA = {"6x3": 0.7}
"""Diversity that is not 0.5 (README of the fixtures)."""


def subject(name: str) -> tuple[Golden, Captioner, Features]:
    golden = load(name)
    if name in SHOW_TELL:
        return golden, show_tell(golden), image(golden)
    if name == "ensemble.npz":
        prefixes = sorted({key.split("/")[0] for key in golden.keys("") if key.startswith("w")})
        members = [transformer(golden, f"{prefix}/") for prefix in prefixes]
        return golden, Ensemble(members).eval(), regions(golden)
    return golden, transformer(golden), regions(golden)


def searches(golden: Golden, pattern: str) -> list[str]:
    return sorted({k.split("/")[0] for k in golden.keys("") if re.match(pattern, k)})


def compare(found: list[Hypothesis], golden: Golden, key: str, row: int) -> None:
    real = golden[f"{key}/done_p"][row] > REAL
    count = int(golden[f"{key}/done_count"][row])
    assert len(found) == count
    for i in range(count):
        if not real[i]:
            continue
        words, log_probs = golden[f"{key}/done_seq"][row, i], golden[f"{key}/done_logps"][row, i]
        spoken = len(found[i].log_probs)
        assert (*found[i].word_ids, *[0] * (len(words) - len(found[i].word_ids))) == tuple(
            words.tolist()
        )
        torch.testing.assert_close(
            torch.tensor(found[i].log_probs), log_probs[:spoken], rtol=0, atol=1e-4
        )
        assert found[i].score == pytest.approx(float(golden[f"{key}/done_p"][row, i]), abs=1e-4)
    assert (*found[0].word_ids,) == tuple(
        golden[f"{key}/seq"][row, : len(found[0].word_ids)].tolist()
    )


@pytest.mark.parametrize("name", [*MODELS, *SHOW_TELL, "ensemble.npz"])
def test_beams_and_diverse_beams_are_the_originals_together_and_alone(name: str) -> None:
    golden, captioner, features = subject(name)
    keys = searches(golden, r"(beam|diverse)\d")
    assert keys
    for key in keys:
        slots, groups = int(re.findall(r"\d+", key)[0]), 1
        if key.startswith("diverse"):
            groups = int(re.findall(r"\d+", key)[1])
            slots //= groups
        speaker = Unrepeating(captioner, word_twice=False) if "nodup" in key else captioner
        options = {
            "start": 0,
            "end": 0,
            "beam": slots,
            "groups": groups,
            "max_length": golden[f"{key}/seq"].shape[1],
            "penalty": LAMBDA.get(key.removeprefix("diverse"), 0.5),
            "length_penalty": float if "ppl" in key else None,
        }
        together = slot_search(speaker, features, **options)
        for row, found in enumerate(together):
            compare(found, golden, key, row)
            one = features.select(slice(row, row + 1))
            alone = slot_search(speaker, one, **options)[0]
            assert [h.word_ids for h in alone] == [h.word_ids for h in found]


@pytest.mark.parametrize("name", [*MODELS, *SHOW_TELL, "ensemble.npz"])
def test_greedy_captions_are_the_originals(name: str) -> None:
    golden, captioner, features = subject(name)
    for key in searches(golden, "greedy"):
        speaker = Unrepeating(captioner, word_twice=False) if "nodup" in key else captioner
        words = golden[f"{key}/seq"]
        with torch.no_grad():
            memory = speaker.encode(features)
            found = roll_out(speaker, memory, argmax, start=0, end=0, steps=words.shape[1])
        assert torch.equal(found.word_ids[:, 0], words)
        compare_spoken(found.log_probs[:, 0], words, golden[f"{key}/logps"])


@pytest.mark.parametrize("name", MODELS)
def test_drawn_captions_have_the_originals_log_probabilities(name: str) -> None:
    golden, captioner, features = subject(name)
    keys = searches(golden, "sample")
    assert keys
    for key in keys:
        words = golden[f"{key}/seq"]
        with torch.no_grad():
            found = roll_out(
                captioner,
                captioner.encode(features),
                given(words.unsqueeze(1)),
                start=0,
                end=0,
                steps=words.shape[1],
            )
        compare_spoken(found.log_probs[:, 0], words, golden[f"{key}/logps"])


def compare_spoken(found: Tensor, words: Tensor, expected: Tensor) -> None:
    """Compare up to the end with it: behind it the original records what it did not say."""
    said = torch.cat([torch.ones_like(words[:, :1]), words[:, :-1]], 1).cumprod(1) > 0
    torch.testing.assert_close(found[said], expected[said], rtol=0, atol=1e-4)
