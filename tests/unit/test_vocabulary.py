import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capscope.data.vocabulary import Vocabulary, build_vocabulary
from capscope.errors import CapscopeError

words = st.text(alphabet="abcdefé'<>", min_size=1, max_size=4)
sentences = st.lists(st.lists(words, max_size=8), min_size=1, max_size=12)


def built(found: list[list[str]], min_count: int = 1) -> Vocabulary:
    return build_vocabulary([["a"] * min_count, *found], min_count)


@given(sentences, st.integers(1, 4))
def test_words_seen_often_enough_come_in_first_seen_order_from_one(
    found: list[list[str]], min_count: int
) -> None:
    vocabulary = built(found, min_count)
    flat = ["a"] * min_count + [word for sentence in found for word in sentence]
    counts = Counter(flat)
    expected = [word for word in dict.fromkeys(flat) if counts[word] >= min_count]
    assert list(vocabulary.words[1:-3]) == expected
    assert vocabulary.words[-3:] == ("<unk>", "<start>", "<end>")
    assert [vocabulary.ids[word] for word in expected] == list(range(1, len(expected) + 1))


@given(sentences)
def test_known_words_come_back_from_their_ids(found: list[list[str]]) -> None:
    vocabulary = built(found)
    for sentence in found:
        assert vocabulary.decode(vocabulary.encode(sentence)) == " ".join(sentence)


@given(sentences, st.lists(words))
def test_unknown_words_become_unk_and_are_not_said(
    found: list[list[str]], sentence: list[str]
) -> None:
    vocabulary = built(found)
    known = {word for one in found for word in one} | {"a"}
    ids = vocabulary.encode(sentence)
    assert [i == vocabulary.unk for i in ids] == [word not in known for word in sentence]
    assert vocabulary.decode(ids) == " ".join(word for word in sentence if word in known)


@given(sentences)
def test_a_vocabulary_survives_json(found: list[list[str]]) -> None:
    vocabulary = built(found)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again == vocabulary
    assert again.sha256 == vocabulary.sha256


def test_decoding_stops_at_end_and_drops_special_words() -> None:
    vocabulary = built([["a", "cat"]])
    a, cat = vocabulary.encode(["a", "cat"])
    ids = [vocabulary.start, a, vocabulary.unk, cat, vocabulary.end, a, vocabulary.pad]
    assert vocabulary.decode(ids) == "a cat"


def test_a_caption_that_spells_a_special_word_gets_unk_and_never_ends_early() -> None:
    vocabulary = build_vocabulary([["a", "<end>", "<start>", "<pad>", "cat"]], 1)
    assert vocabulary.words == ("<pad>", "a", "cat", "<unk>", "<start>", "<end>")
    assert vocabulary.decode(vocabulary.encode(["a", "<end>", "cat"])) == "a cat"


def test_the_hash_depends_on_words_their_order_and_the_special_ids() -> None:
    one = build_vocabulary([["a", "cat"]], 1)
    other = build_vocabulary([["cat", "a"]], 1)
    moved = Vocabulary(one.words, one.pad, one.start, one.end, None)
    assert len({one.sha256, other.sha256, moved.sha256}) == 3


@pytest.mark.parametrize(
    ("special", "text"),
    [
        ({"pad": 0, "start": None, "end": 0, "unk": 3}, "a cat"),  # spatial: 0 is pad and end
        ({"pad": 0, "start": None, "end": 0, "unk": None}, "a cat UNK"),
        ({"pad": 3, "start": 0, "end": 0, "unk": None}, "a cat"),
    ],
)
def test_special_ids_may_coincide_or_be_absent(special: dict[str, int], text: str) -> None:
    vocabulary = Vocabulary(("<stop>", "a", "cat", "UNK"), **special)
    assert vocabulary.decode([1, 2, 3, 0, 1]) == text
    assert vocabulary.encode(["a", "dog"]) == ([1, 3] if special["unk"] else [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": ["a", "a"]}, "'a' occurs twice"),
        ({"words": "abc"}, "list of strings"),
        ({"words": ["a", 3]}, "list of strings"),
        ({"end": 99}, "end = 99"),
        ({"pad": None}, "pad = None"),
        ({"unk": "3"}, "whole numbers"),
        ({"extra": 1}, "expected an object"),
    ],
)
def test_a_wrong_vocabulary_file_is_refused(change: dict[str, object], message: str) -> None:
    loaded = build_vocabulary([["a", "cat"]], 1).to_json() | change
    with pytest.raises(CapscopeError, match=message):
        Vocabulary.from_json(loaded, "vocabulary.json")


def test_a_threshold_that_no_word_reaches_is_an_error() -> None:
    with pytest.raises(CapscopeError, match="min_count"):
        build_vocabulary([["a", "cat"]], 2)
