"""Document frequencies: counted, read from n-gram files, and what CIDEr makes of them."""

from __future__ import annotations

import json
import os
import pickle
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capscope.errors import CapscopeError
from capscope.metrics.cider import cider_d
from capscope.metrics.frequencies import CorpusFrequencies, DocumentFrequencies
from capscope.metrics.frequency_files import is_frequencies, read_frequencies, write_frequencies
from capscope.metrics.words import References

TABLE = DocumentFrequencies({("a",): 3.0, ("a", "dog"): 2.0, ("a", "dog", "runs"): 1.0}, 4)

texts = st.lists(st.sampled_from(["a", "dog", "cat", "runs"]), max_size=7)
image = st.tuples(texts, st.lists(texts, min_size=1, max_size=3))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(image, min_size=1, max_size=4), st.lists(st.lists(texts, min_size=1), max_size=5))
def test_frequencies_counted_with_sorts_score_as_those_counted_one_by_one(images, corpus):
    references, candidates = [refs for _, refs in images], [one for one, _ in images]
    sorted_ones = CorpusFrequencies(References.of(corpus))
    counted = DocumentFrequencies.of(corpus)
    assert sorted_ones.images == counted.images == len(corpus)
    ours = cider_d(references, candidates, sorted_ones)[1]
    np.testing.assert_allclose(ours, cider_d(references, candidates, counted)[1], atol=1e-12)


def test_frequencies_of_the_evaluated_images_themselves_are_the_default():
    references = [[["a", "dog"], ["the", "dog"]], [["a", "cat"]]]
    candidates = [["a", "dog"], ["the", "cat"]]
    own = CorpusFrequencies(References.of(references))
    np.testing.assert_array_equal(
        cider_d(references, candidates, own)[1], cider_d(references, candidates)[1]
    )


def test_an_ngram_file_comes_back_as_it_was_written(tmp_path):
    write_frequencies(tmp_path / "ngrams.json", TABLE)
    found = read_frequencies(tmp_path / "ngrams.json")
    assert (found.counts, found.images) == (TABLE.counts, TABLE.images)
    assert found.source == "document frequencies from ngrams.json (4 images)"
    assert is_frequencies(tmp_path / "ngrams.json")
    ids = DocumentFrequencies({(12, 7, 0): 1.0, (12,): 2.0}, 3)
    write_frequencies(tmp_path / "ids.json", ids, "idxs")
    assert read_frequencies(tmp_path / "ids.json", "idxs").counts == ids.counts


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_published_pickles_are_read_without_unpickling(tmp_path, protocol):
    counts = defaultdict(
        float, {("12",): 5.0, ("12", "7"): 1.0, ("7", "12", "7", "0"): np.float64(2)}
    )
    path = tmp_path / "coco-train-idxs.p"
    path.write_bytes(pickle.dumps({"document_frequency": counts, "ref_len": 9}, protocol))
    if protocol < 2:  # no first byte tells it from text
        with pytest.raises(CapscopeError, match="not valid JSON"):
            read_frequencies(path)
        return
    assert is_frequencies(path)
    found = read_frequencies(path, "idxs")
    assert found.counts == {(12,): 5.0, (12, 7): 1.0, (7, 12, 7, 0): 2.0}
    assert found.images == 9
    assert set(read_frequencies(path).counts) == set(counts)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    class Canary:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "canary"),))

    path = tmp_path / "ngrams.p"
    path.write_bytes(pickle.dumps({"document_frequency": Canary(), "ref_len": 1}))
    with pytest.raises(CapscopeError, match=r"ngrams.p is not an n-gram file: .*can run code"):
        read_frequencies(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not an n-gram file: it needs a mapping 'words'"),
        ('{"ref_len": 3, "idxs": {"1": 1}}', "needs a mapping 'words'"),
        ('{"words": {"a": 1}}', "'ref_len' must be the number of images.* found None"),
        ('{"words": {"a": 1}, "ref_len": 0}', "found 0"),
        ('{"words": {"a": "x"}, "ref_len": 2}', r"\('a',\) occurs in 'x' images"),
        ('{"words": {"a b c d e": 1}, "ref_len": 2}', "no n-gram of 1 to 4 words"),
        ('{"words": {"a  b": 1}, "ref_len": 2}', "no n-gram"),
        ('{"words": {"a": -1}, "ref_len": 2}', "-1 images"),
        ('{"words": {}, "ref_len": 2}', "holds no n-gram"),
        ("no json", "not valid JSON"),
    ],
)
def test_a_file_that_is_none_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "ngrams.json"
    path.write_text(content)
    with pytest.raises(CapscopeError, match=message) as error:
        read_frequencies(path)
    assert str(path) in str(error.value)


def test_words_in_place_of_ids_and_damaged_pickles_are_named(tmp_path):
    write_frequencies(tmp_path / "n.json", TABLE, "idxs")
    with pytest.raises(CapscopeError, match="no n-gram of word ids"):
        read_frequencies(tmp_path / "n.json", "idxs")
    whole = pickle.dumps({"document_frequency": {("a",): 1.0}, "ref_len": 1})
    (tmp_path / "cut.p").write_bytes(whole[:-4])
    with pytest.raises(CapscopeError, match=r"cut\.p is not an n-gram file"):
        read_frequencies(tmp_path / "cut.p")
    with pytest.raises(CapscopeError, match="cannot read"):
        read_frequencies(tmp_path / "absent.p")


def test_the_json_layout_is_plain(tmp_path):
    write_frequencies(tmp_path / "n.json", TABLE)
    assert json.loads((tmp_path / "n.json").read_text()) == {
        "ref_len": 4,
        "words": {"a": 3.0, "a dog": 2.0, "a dog runs": 1.0},
    }
