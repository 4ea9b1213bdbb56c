"""N-grams as numbers: exact for any vocabulary, the same on both ways of looking them up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capscope.metrics.lookup import Lookup
from capscope.metrics.ngrams import NgramIndex
from capscope.metrics.words import References, Words

texts = st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=6)


def ngrams_of(caption):
    return Counter(
        tuple(caption[k : k + n]) for n in (1, 2, 3, 4) for k in range(len(caption) - n + 1)
    )


def decoded(counts, captions):
    """Return the counts of each caption, as a multiset of (order, count, number)."""
    entries = zip(counts.caption, counts.order, counts.count, counts.ngram, strict=True)
    found = [{} for _ in captions]
    for caption, order, count, number in entries:
        found[caption][(int(order), int(number))] = int(count)
    return found


def check(index, captions, counts, known):
    """Each n-gram has one number and the right count; those of `known` have theirs."""
    numbers = {}
    for caption, entries in zip(captions, decoded(counts, captions), strict=True):
        expected = ngrams_of(caption)
        assert Counter(entries.values()) == Counter(expected.values())
        by_order = {
            n: sorted(c for (o, _), c in entries.items() if o == n - 1) for n in range(1, 5)
        }
        for n, found in by_order.items():
            assert found == sorted(c for gram, c in expected.items() if len(gram) == n)
    for k, caption in enumerate(captions):
        alone = index.count([caption])
        for gram in ngrams_of(caption):
            own = index.count([list(gram)])
            number = int(own.ngram[own.order == len(gram) - 1][0])
            if gram in known:
                assert number < index.size
                assert numbers.setdefault(gram, number) == number
                assert number in alone.ngram
                assert number in counts.ngram[counts.caption == k]
            else:
                assert number >= index.size
    assert len(set(numbers.values())) == len(numbers)


@settings(max_examples=80, deadline=None)
@given(texts, texts, st.booleans(), st.booleans())
def test_counts_are_those_of_counting_one_by_one(captions, others, as_text, packed):
    if as_text:
        captions = [[f"w{word}" for word in caption] for caption in captions]
        others = [[f"w{word}" for word in caption] for caption in others]
    index = NgramIndex(Words.of(captions))
    if not packed:
        index._packed = None
    known = {gram for caption in captions for gram in ngrams_of(caption)}
    assert index.size == len(known)
    check(index, captions, index.counts, known)
    check(index, others, index.count(others), known)


def test_both_ways_of_looking_up_number_the_same():
    rng = np.random.default_rng(0)
    captions = [rng.integers(0, 30, 9).tolist() for _ in range(50)]
    others = [rng.integers(0, 40, 9).tolist() for _ in range(50)]
    index = NgramIndex(Words.of(captions))
    packed = index.count(others)
    index._packed = None
    chained = index.count(others)
    known = packed.ngram < index.size
    np.testing.assert_array_equal(known, chained.ngram < index.size)
    for name in ("order", "caption", "count"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(chained, name))
    np.testing.assert_array_equal(packed.ngram[known], chained.ngram[known])


@pytest.mark.parametrize("words", [65_533, 65_534, 65_535, 70_000])
def test_a_vocabulary_around_the_limit_of_packing_is_exact(words):
    captions = [list(range(k, k + 7)) for k in range(0, words - 6, 7)]
    captions.append(list(range(words - 7, words)))
    index = NgramIndex(Words.of(captions))
    assert (index._packed is None) == (words >= 65_535)
    others = [captions[-1], [words - 1, words, words + 1, words + 1], [*captions[0], 5, 6]]
    counts = index.count(others)
    last = counts.ngram[counts.caption == 0]
    assert (last < index.size).all()
    assert len(set(last.tolist())) == 7 + 6 + 5 + 4
    new = counts.caption == 1
    assert ((counts.ngram[new] < index.size).sum(), counts.count[new].sum()) == (1, 10)


def test_more_unknown_words_than_fit_are_counted_all_the_same():
    index = NgramIndex(Words.of([["a", "dog"]]))
    giant = [f"w{k}" for k in range(70_000)] + ["a", "dog"]
    counts = index.count([giant, ["a", "dog"]])
    assert (counts.caption == 0).sum() == sum(len(giant) - n for n in range(4))
    shared = set(counts.ngram[counts.caption == 1].tolist())
    assert shared == {0, 1, 2}
    assert shared < set(counts.ngram[counts.caption == 0].tolist())


@pytest.mark.parametrize("unknown", [["12"], [12.5], [True], [-3], [10**12], [None], ["12", 12]])
def test_a_word_of_another_kind_is_no_word_id(unknown):
    index = NgramIndex(Words.of([[12, 3], [7]]))
    number = {word: int(index.count([[word]]).ngram[0]) for word in (12, 3, 7)}
    assert sorted(number.values()) == [0, 1, 2]
    counts = index.count([unknown])
    singles = counts.ngram[counts.order == 0]
    assert sum(single < index.size for single in singles) == unknown.count(12)


def test_word_ids_may_be_any_integers():
    rows = [[-5, 10**15], [3]]
    index = NgramIndex(Words.of(rows))
    counts = index.count([*rows, [4]])
    assert (counts.ngram < index.size).tolist() == [True, True, True, False, True]
    as_arrays = index.count([np.array(row) for row in rows])
    np.testing.assert_array_equal(as_arrays.ngram, index.counts.ngram)


def test_a_lookup_finds_what_is_there_and_nothing_else():
    keys = np.array([5, -7, 1 << 62])
    lookup = Lookup(keys)
    np.testing.assert_array_equal(lookup.find(np.array([1 << 62, 6, 5, -7])), [2, -1, 0, 1])
    assert Lookup(np.zeros(0, np.int64)).find(np.array([1])).tolist() == [-1]


def test_words_are_split_as_their_metrics_do():
    plain, same = Words.split(["a dog", "cat"])
    assert plain is same
    assert list(plain) == [["a", "dog"], ["cat"]]
    for text in ("a  b", " a", "a ", "", "a\tb", "a\u00a0b", "a\nb", "\x1ca", "é\u2003b"):
        words, fields = Words.split([text, "x"])
        assert [list(one) for one in words] == [text.split(), ["x"]]
        assert [list(one) for one in fields] == [text.split(" "), ["x"]]
    together = Words.split(["a", "b c"])[0] + Words.of([["d"]])
    assert list(together) == [["a"], ["b", "c"], ["d"]]
    assert list(Words.split([])[0]) == []


def test_references_know_their_images():
    references = References.of([[["a"], ["b", "c"]], [["d"]]])
    assert references.first.tolist() == [0, 2]
    assert references.image.tolist() == [0, 0, 1]
    assert references.words.lengths.tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match="at least one reference"):
        References.of([[]])
