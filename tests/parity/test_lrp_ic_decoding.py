"""Greedy, beam and diverse beam search against the original program."""

import json
import re

import pytest
import torch
from image_networks import GOLDEN, Golden
from original_captioners import KINDS, captioner_of, features_of, kind_of

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.beam import beam_search
from capscope.decoding.diverse import diverse_beam_search
from capscope.decoding.endings import strip_bad_endings
from capscope.decoding.hypothesis import Hypothesis
from capscope.decoding.sampling import argmax, greedy_search, roll_out

ABSOLUTE = 1e-5
LONGEST_DIVERSE = 50
ALSO = frozenset({"and"})  # gridTD's further bad ending


@pytest.fixture(params=KINDS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(f"lrp_ic/{request.param}.npz")


def vocabulary_of(golden: Golden) -> Vocabulary:
    word_map = golden.meta["word_map"]
    words = tuple(sorted(word_map, key=word_map.__getitem__))
    special = {name: word_map[f"<{name}>"] for name in ("pad", "start", "end", "unk")}
    return Vocabulary(words, **special)


def longest(golden: Golden) -> int:
    """Ids of greedy and beam search at most, the start among them."""
    return golden["greedy_search_ids"].shape[1]


def spoken_ids(hypothesis: Hypothesis, vocabulary: Vocabulary) -> list[int]:
    return [word for word in hypothesis.word_ids if word not in vocabulary.special_ids]


def sentence(hypothesis: Hypothesis, golden: Golden) -> str:
    """Return the sentence as the original prints it; its class adaptive strips nothing."""
    caption = vocabulary_of(golden).decode(hypothesis.word_ids)
    kind = kind_of(golden)
    if kind == "adaptive":
        return caption
    return strip_bad_endings(caption, also=ALSO if kind.startswith("gridtd") else frozenset())


def test_greedy_sample_and_its_log_probabilities(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    vocabulary = vocabulary_of(golden)
    expected = golden["sample_greedy_ids"]
    with torch.no_grad():
        rollout = roll_out(
            captioner,
            captioner.encode(features_of(golden)),
            argmax,
            start=vocabulary.start,
            end=vocabulary.end,
            steps=expected.shape[1],
        )
    found = rollout.word_ids[:, 0]
    assert torch.equal(found.masked_fill(found == vocabulary.end, 0), expected)
    spoken = found != 0
    torch.testing.assert_close(
        rollout.log_probs[:, 0][spoken],
        golden["sample_greedy_logprobs"][spoken],
        rtol=0,
        atol=ABSOLUTE,
    )


def test_greedy_search(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    vocabulary = vocabulary_of(golden)
    found = greedy_search(
        captioner,
        features_of(golden),
        start=vocabulary.start,
        end=vocabulary.end,
        max_length=longest(golden) - 1,
    )
    rows = golden["greedy_search_ids"].tolist()
    if kind_of(golden).startswith("aoa"):  # only the last image's, without special words
        assert [word for word in rows[-1] if word != -1] == spoken_ids(found[-1], vocabulary)
    else:
        for hypothesis, row in zip(found, rows, strict=True):
            ids = [vocabulary.start, *hypothesis.word_ids]
            assert ids + [0] * (len(row) - len(ids)) == row
    sentences = json.loads(str(golden.arrays["greedy_search_sentences"]))
    assert [vocabulary.decode(hypothesis.word_ids) for hypothesis in found] == sentences


def test_beam_search_with_every_width_of_the_fixture(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    vocabulary = vocabulary_of(golden)
    widths = [int(name.removesuffix("_ids")) for name in golden.keys("beam") if "_ids" in name]
    assert widths
    for width in widths:
        found = beam_search(
            captioner,
            features_of(golden),
            start=vocabulary.start,
            end=vocabulary.end,
            beam=width,
            max_length=longest(golden),
            parity=True,
        )
        expected = golden[f"beam{width}_ids"].tolist()
        for hypotheses, row in zip(found, expected, strict=True):
            assert spoken_ids(hypotheses[0], vocabulary) == [word for word in row if word != -1]
        sentences = json.loads(str(golden.arrays[f"beam{width}_sentences"]))
        assert [sentence(hypotheses[0], golden) for hypotheses in found] == sentences


def test_diverse_beam_search_with_every_penalty_of_the_fixture(golden: Golden) -> None:
    captioner, _ = captioner_of(golden)
    vocabulary = vocabulary_of(golden)
    cases = [re.fullmatch(r"(\d+)(?:_div(\d+))?_sentences", key) for key in golden.keys("dbs")]
    assert cases
    for case in cases:
        assert case is not None
        found = diverse_beam_search(
            captioner,
            features_of(golden),
            start=vocabulary.start,
            end=vocabulary.end,
            groups=int(case[1]),
            beam=int(case[1]),
            max_length=LONGEST_DIVERSE,
            penalty=float(case[2] or 0.5),
            parity=True,
        )
        expected = json.loads(str(golden.arrays[f"dbs{case[0]}"]))
        assert [[sentence(h, golden) for h in image] for image in found] == expected


def test_bad_endings_of_single_sentences() -> None:
    golden = Golden("lrp_ic/text_metrics2.npz")
    sentences = json.loads(str(golden.arrays["badend2.in"]))
    for name, also in {"gridtd": ALSO, "aoa": frozenset[str]()}.items():
        expected = json.loads(str(golden.arrays[f"badend2.out.{name}"]))
        for given, stripped in zip(sentences, expected, strict=True):
            found = strip_bad_endings(given, also=also)
            assert found == (given if stripped is None else stripped)


def test_bad_endings_of_the_first_fixture() -> None:
    golden = Golden("lrp_ic/text_metrics.npz")
    sentences = json.loads(str(golden.arrays["badend.subset"]))
    for name, also in {"gridtd": ALSO, "aoa": frozenset[str]()}.items():
        expected = json.loads(str(golden.arrays[f"badend.{name}"]))
        assert [strip_bad_endings(given, also=also) for given in sentences] == expected


def test_the_fixture_folder_is_where_the_environment_says() -> None:
    assert GOLDEN.is_dir()
