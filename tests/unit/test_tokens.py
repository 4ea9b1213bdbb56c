import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capscope.data.tokens import clean_text, clean_tokens, tokenize

SEPARATORS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's dog, sitting.", ["a", "man", "s", "dog", "sitting"]),
        ("Two  cats -- one RED!", ["two", "cats", "one", "red"]),
        ("Ein Café für zwölf", ["ein", "café", "für", "zwölf"]),
        ("...", []),
        ("", []),
    ],
)
def test_words_are_lower_case_runs_of_word_characters(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


@pytest.mark.parametrize("separator", [*SEPARATORS, "\0", "\x07", "\ud800", "\t"])
def test_separators_and_controls_become_one_blank(separator: str) -> None:
    assert clean_text(f" a{separator}cat {separator}\n") == "a cat"


@pytest.mark.slow
@given(st.text())
def test_clean_text_is_one_printable_line_and_stays_as_it_is(text: str) -> None:
    cleaned = clean_text(text)
    assert len(cleaned.splitlines()) <= 1
    assert clean_text(cleaned) == cleaned
    assert not {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(c) for c in cleaned}
    cleaned.encode("utf-8")


@given(st.text())
def test_tokenising_again_what_was_joined_changes_nothing(text: str) -> None:
    words = tokenize(text)
    assert tokenize(" ".join(words)) == [
        w for word in words for w in re.findall(r"\w+", word.lower())
    ]
    assert all(word and not set(word) & set(" \t\n") for word in words)


@given(st.text(alphabet=st.characters(max_codepoint=0x24F)))
def test_cleaning_changes_no_word(text: str) -> None:
    assert tokenize(clean_text(text)) == tokenize(text)


@given(st.lists(st.text()))
def test_ready_made_tokens_hold_no_blanks(tokens: list[str]) -> None:
    assert all(token and token == clean_text(token) for token in clean_tokens(tokens))
    assert clean_tokens(clean_tokens(tokens)) == clean_tokens(tokens)
