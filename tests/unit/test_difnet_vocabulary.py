"""Reading the pickled vocabulary of DIFNet's program."""

import pickle
import sys
from collections import Counter, defaultdict
from types import ModuleType

import pytest

from capscope.errors import CapscopeError
from capscope.importers.difnet_vocabulary import (
    SPECIAL,
    by_count,
    published,
    read_vocabulary,
    write_vocabulary,
)

WORDS = [*SPECIAL, "a", "dog", "zebra"]


@pytest.fixture
def original(monkeypatch):
    """Stand-ins of the published class and function, under their names."""
    module = ModuleType("data.vocab")

    class Vocab:
        pass

    def _default_unk_index():
        return 0

    for made in (Vocab, _default_unk_index):
        made.__module__ = "data.vocab"
        made.__qualname__ = made.__name__
        setattr(module, made.__name__, made)
    package = ModuleType("data")
    package.vocab = module
    monkeypatch.setitem(sys.modules, "data", package)
    monkeypatch.setitem(sys.modules, "data.vocab", module)
    vocabulary = Vocab()
    vocabulary.freqs = Counter({"a": 9, "dog": 5, "zebra": 5, "rare": 1})
    vocabulary.itos = WORDS
    vocabulary.stoi = defaultdict(_default_unk_index, {w: i for i, w in enumerate(WORDS)})
    vocabulary.vectors = None
    return vocabulary


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_vocabulary_is_read_whatever_the_protocol(original, protocol, tmp_path):
    path = tmp_path / "vocab.pkl"
    path.write_bytes(pickle.dumps(original, protocol))
    found = read_vocabulary(path)
    assert list(found.vocabulary.words) == WORDS
    assert found.counts == dict(original.freqs)
    assert (found.vocabulary.unk, found.vocabulary.pad) == (0, 1)
    assert (found.vocabulary.start, found.vocabulary.end) == (2, 3)
    assert [*SPECIAL, *by_count(WORDS[len(SPECIAL) :], found.counts)] == WORDS


def test_what_is_written_is_what_the_original_pickles(original, tmp_path):
    path = tmp_path / "vocab.pkl"
    write_vocabulary(path, published(WORDS[len(SPECIAL) :]), original.freqs)
    assert read_vocabulary(path).counts == dict(original.freqs)
    found = pickle.loads(path.read_bytes())
    assert type(found) is type(original)
    assert vars(found) == vars(original)
    assert type(found.freqs) is Counter
    assert list(found.stoi) == WORDS
    assert found.stoi["no such word"] == 0


def test_other_texts_and_no_counts_are_written_too(original, tmp_path):
    path, words = tmp_path / "vocab.pkl", ["é", "中", "word " * 100]
    write_vocabulary(path, published(words))
    assert read_vocabulary(path).vocabulary.words == (*SPECIAL, *words)
    assert not pickle.loads(path.read_bytes()).freqs


class Evil:
    def __reduce__(self):
        return print, ("called",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil()), r"can run code \((builtins|__builtin__)\.print\)"),
        (pickle.dumps({"itos": [*"abcd"], "freqs": {}}), "the first words are"),
        (pickle.dumps({"itos": 3}), "holds no vocabulary"),
        (pickle.dumps(WORDS)[:-4], "damaged|cut short"),
        (b"nothing", "damaged"),
    ],
)
def test_what_is_no_vocabulary_is_refused(content, message, tmp_path, capsys):
    path = tmp_path / "vocab.pkl"
    path.write_bytes(content)
    with pytest.raises(CapscopeError, match=message):
        read_vocabulary(path)
    assert capsys.readouterr().out == ""
