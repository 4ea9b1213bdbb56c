"""The tokeniser in Python against CoreNLP's jar, on real captions and on mutations of them."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from capscope.metrics.tokenizer import ptb_tokenize
from capscope.metrics.treebank import treebank_tokenize, treebank_tokens

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden"))
DATA = Path(os.environ.get("CAPSCOPE_DATA", ROOT / "../shared/data"))

PIECES = [*".,'\"-/:;?!&()#$%@*+=0123456789 ", "'s", "n't", "...", " - ", ". ", "--", "  "]
WILD = [*"éüñ–—“”‘’…€£½²°™☆\u00a0\u200b😀❤[]{}<>~^|\\_`", ":)", ";-)", "www.", "&amp;"]
WORDS = [
    *("U.S.", "Mr.", "B.", "it's", "don't", "5:30", "1/2", "3-way", "St.", "'90s", "80's", "No."),
    *("A", "cannot", "gonna", "$5", "50%", "#1", "AT&T", "o'clock", "t-shirt", "and/or", "12,000"),
    *("3.5", "I'm", "dogs'", '"stop"', "(red)", "x-ray.", "you're", "e-mail", "a.m.", "Ph.D."),
]


def captions():
    path = GOLDEN / "metrics" / "captions.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    loaded = json.loads(path.read_text("utf-8"))
    return [text for i in loaded["ids"] for text in (*loaded["refs"][i], loaded["cands"][i])]


def val2017():
    path = DATA / "captions_val2017.json"
    if not path.exists():
        pytest.skip(f"{path} is not here (CAPSCOPE_DATA names another folder)")
    loaded = json.loads(path.read_text("utf-8"))
    return [annotation["caption"] for annotation in loaded["annotations"]]


def mutate(text, rng, pieces):
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text) + 1)
        before, after = text[:place], text[place:]
        words = text.split(" ")
        chosen = rng.randrange(len(words))
        kind = rng.choice(("insert", "insert", "insert", "drop", "double", "capital", "word"))
        if kind == "insert":
            text = before + rng.choice(pieces) + after
        elif kind == "drop":
            text = before + after[1:]
        elif kind == "double":
            text = before + after[:1] + after
        elif kind == "capital":
            words[chosen] = words[chosen].upper()
            text = " ".join(words)
        else:
            words[chosen] = rng.choice(WORDS)
            text = " ".join(words)
    return text


def differences(texts, *, parity):
    # The twin does not copy what the jar does to the very end of a file.
    texts = [*texts, "a dog"]
    ours, theirs = treebank_tokenize(texts, parity=parity), ptb_tokenize(texts, parity=parity)
    return [row for row in zip(texts, theirs, ours, strict=True) if row[1] != row[2]]


@pytest.mark.slow
@pytest.mark.parametrize("parity", [False, True])
def test_real_captions_have_the_tokens_of_the_jar(parity):
    assert differences(captions(), parity=parity) == []


@pytest.mark.slow
def test_every_caption_of_val2017_has_the_tokens_of_the_jar_with_file_context():
    texts = val2017()
    assert treebank_tokenize(texts, parity=True) == ptb_tokenize(texts, parity=True)


@pytest.mark.slow
def test_every_caption_of_val2017_alone_has_the_tokens_of_the_jar():
    assert differences(val2017(), parity=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [PIECES, PIECES + WILD])
@pytest.mark.parametrize("source", [captions, val2017])
def test_of_mutated_captions_999_of_1000_have_the_tokens_of_the_jar(source, pieces):
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    real = source()
    texts = [mutate(rng.choice(real), rng, pieces) for _ in range(25_000)]
    different = differences(texts, parity=True)
    assert len(different) <= 0.001 * len(texts), f"seed {seed}: {different[:30]}"


def test_a_period_of_a_single_letter_depends_on_the_next_line_only_if_it_is_given():
    assert treebank_tokens("the letter B.") == ["the", "letter", "b."]
    assert treebank_tokens("the letter B.", "The dog\n") == ["the", "letter", "b"]
    assert treebank_tokens("the letter B.", "Dogs run\n") == ["the", "letter", "b."]


def test_nothing_gives_nothing():
    assert treebank_tokenize([]) == []
    assert treebank_tokenize(["", " \n ", "... !", "\ud83d\x00"]) == ["", "", "", ""]


def test_a_mixed_number_is_one_token_with_a_blank_inside():
    assert treebank_tokens("22 3/4 inches") == ["22\u00a03/4", "inches"]
