"""PTB tokenisation in one Java process: order, separators, failures."""

from __future__ import annotations

import sys

import pytest

from capscope.errors import CapscopeError
from capscope.metrics import tokenizer
from capscope.metrics.tokenizer import one_line, ptb_tokenize

SEPARATORS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.slow
def test_line_separators_never_shift_captions_to_other_images():
    captions = [f"A dog{mark}runs." for mark in SEPARATORS] + ["The cat.\r\n", "", "  ", "Zzz"]
    expected = ["a dog runs"] * len(SEPARATORS) + ["the cat", "", "", "zzz"]
    assert ptb_tokenize(captions) == expected
    assert ptb_tokenize(captions, parity=True) == expected


@pytest.mark.slow
def test_a_caption_is_tokenised_as_if_alone_unless_parity_is_asked_for():
    captions = ["A sign with the letter B.", "The train is red.", "A meeting at Apple Inc."]
    assert ptb_tokenize(captions)[0] == "a sign with the letter b."
    assert ptb_tokenize(captions, parity=True)[0] == "a sign with the letter b"
    assert ptb_tokenize(captions) == [ptb_tokenize([caption])[0] for caption in captions]


def test_tokens_do_not_depend_on_the_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.ISO-8859-1")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Dfile.encoding=ISO-8859-1")
    assert ptb_tokenize(["TITLE INSIDE: Ωmega and naïve."]) == ["title inside ωmega and naïve"]


def test_characters_that_no_encoding_knows_do_no_harm():
    assert ptb_tokenize(["a \ud83d dog\x00 runs"]) == ["a dog runs"]


def test_no_captions_start_no_process(monkeypatch):
    monkeypatch.setattr(tokenizer, "_run_tokenizer", None)
    assert ptb_tokenize([]) == []


def test_one_line_keeps_everything_but_line_separators():
    assert one_line(f"a{SEPARATORS}b\tc\xa0d") == "a" + " " * len(SEPARATORS) + "b\tc\xa0d"


@pytest.mark.parametrize(
    ("script", "timeout", "message"),
    [
        ("import time; time.sleep(60)", 0.5, "did not finish in 0.5 s"),
        ("import sys; sys.exit('no memory')", 60, "failed: no memory"),
        ("print('one line')", 60, "returned 2 lines for 4"),
    ],
)
def test_a_tokeniser_that_fails_says_so(monkeypatch, script, timeout, message):
    monkeypatch.setattr(tokenizer, "java_command", lambda *_: [sys.executable, "-c", script])
    with pytest.raises(CapscopeError, match=message):
        ptb_tokenize(["a dog", "a cat"], timeout=timeout)


def test_a_missing_java_is_named(monkeypatch):
    monkeypatch.setattr(tokenizer, "java_command", lambda *_: ["/no/such/java"])
    with pytest.raises(CapscopeError, match="cannot start Java"):
        ptb_tokenize(["a dog"])
