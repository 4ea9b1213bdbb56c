"""Tokens and alignments are kept on disk: found again, never mixed up, never trusted if damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capscope.metrics import tokenized
from capscope.metrics.cache import LineCache, placed
from capscope.metrics.meteor import Meteor
from capscope.metrics.tokenized import Tokenizer

FILES = [["A dog runs.", "The cat sits"], ["A letter B.", "The end."], []]
TOKENS = [["a dog runs", "the cat sits"], ["a letter b.", "the end"], []]


class Counting:
    """Stands for the jar: counts calls and texts."""

    def __init__(self):
        self.calls, self.texts = 0, 0

    def __call__(self, texts, **options):
        self.calls += 1
        self.texts += len(texts)
        return [text.lower().rstrip(".") for text in texts]


@pytest.fixture
def jar(monkeypatch):
    counting = Counting()
    monkeypatch.setattr(tokenized, "ptb_tokenize", counting)
    return counting


def test_a_file_is_tokenised_once(tmp_path, jar):
    tokenizer = Tokenizer(cache=tmp_path)
    first = tokenizer.files(FILES)
    assert (jar.calls, jar.texts) == (1, 4)
    assert tokenizer.files(FILES) == first == Tokenizer(cache=tmp_path).files(FILES)
    assert jar.calls == 1
    new = ["something else"]
    assert tokenizer.files([FILES[1], new, FILES[0]]) == [first[1], new, first[0]]
    assert (jar.calls, jar.texts) == (2, 5)


def test_order_and_context_and_version_make_another_file(tmp_path, jar, monkeypatch):
    Tokenizer(cache=tmp_path).files(FILES[:1])
    Tokenizer(cache=tmp_path).files([FILES[0][::-1]])
    assert jar.calls == 2
    Tokenizer(cache=tmp_path, parity=True).files(FILES[:1])
    assert jar.calls == 3
    Tokenizer(cache=tmp_path).files([[*FILES[0], ""]])
    assert jar.calls == 4
    monkeypatch.setattr("importlib.metadata.version", lambda _: "9.9")
    Tokenizer(cache=tmp_path).files(FILES[:1])
    assert jar.calls == 5


def test_in_parity_each_file_is_one_of_its_own(jar):
    Tokenizer(parity=True).files(FILES[:2])
    assert jar.calls == 2


def test_without_a_folder_nothing_is_kept(tmp_path, jar, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        Tokenizer().files(FILES)
    assert jar.calls == 2
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_the_jar_is_told_before(tmp_path, jar):
    told = []
    for _ in range(2):
        Tokenizer(cache=tmp_path).files(FILES, lambda: told.append(jar.calls))
    assert told == [0]


@pytest.mark.parametrize("damage", [b"", b"x", b"deadbeef\na\nb\n"])
def test_a_damaged_entry_is_made_again(tmp_path, jar, damage):
    tokenizer = Tokenizer(cache=tmp_path)
    expected = tokenizer.files(FILES[:1])
    (entry,) = tmp_path.rglob("*.txt")
    whole = entry.read_bytes()
    for spoilt in (damage, whole[:-3], whole.replace(b"dog", b"god")):
        entry.write_bytes(spoilt)
        assert tokenizer.files(FILES[:1]) == expected
        assert entry.read_bytes() == whole
    assert jar.calls == 4


def test_a_folder_that_cannot_be_written_to_is_a_warning(tmp_path, jar):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="metrics.cache"):
        assert Tokenizer(cache=tmp_path / "file").files(FILES[:1])[0][0] == "a dog runs"


def test_every_text_that_a_tokeniser_may_return_comes_back(tmp_path):
    cache = LineCache(tmp_path, "ptb")
    answers = ["", " ", "22\u00a03/4 \u2028 é", "\x1c x"]
    cache.put(["1", "2", "3", "4"], answers)
    assert cache.get(["1", "2", "3", "4"]) == answers
    assert cache.get(["1", "2", "3", "4", ""]) is None
    assert cache.get(["1", "2", "3\n4"]) is None


def test_the_jar_and_the_cache_give_the_same(tmp_path):
    for _ in range(2):
        assert Tokenizer(cache=tmp_path).files(FILES) == TOKENS
    assert Tokenizer("python").files(FILES) == TOKENS


def test_alignments_are_found_again_without_a_process(tmp_path):
    script = "import sys\nfor n, line in enumerate(sys.stdin): print(*[n + 0.5] * 23, flush=True)"
    references, captions = [["a dog"], ["a cat"], ["a dog"]], ["dog", "cat", "dog"]
    with Meteor(command=[sys.executable, "-c", script], cache=tmp_path) as meteor:
        computed = meteor.statistics(references, captions)
    assert computed[:, 0].tolist() == [0.5, 1.5, 0.5]
    absent = Meteor(command=["/no/such/java"], cache=tmp_path)
    np.testing.assert_array_equal(absent.statistics(references, captions), computed)


@pytest.mark.slow
def test_training_and_its_metrics_load_nothing_that_needs_a_model():
    program = (
        "import sys, capscope.training.run, capscope.metrics.cider, capscope.metrics.bleu; "
        "print([name for name in sys.modules if name.startswith('capscope.metrics')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "capscope.metrics.cider" in done.stdout, done.stderr
    for module in ("runs", "spice", "bertscore", "clipscore"):
        assert f"'capscope.metrics.{module}'" not in done.stdout


def test_the_folder_is_that_of_the_environment_unless_the_parameters_name_one(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CAPSCOPE_CACHE", str(tmp_path / "here"))
    assert placed("auto") == tmp_path / "here"
    assert placed("auto", "corenlp") == tmp_path / "here" / "corenlp"
    assert placed("~/there") == placed("~/there", "corenlp") == Path("~/there").expanduser()
    monkeypatch.setenv("CAPSCOPE_CACHE", "")
    assert placed("auto") == Path("~/.cache/capscope").expanduser()
    monkeypatch.delenv("CAPSCOPE_CACHE")
    assert placed("auto") == Path("~/.cache/capscope").expanduser()
