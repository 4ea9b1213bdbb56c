"""Reading the pickled vocabulary of DIFNet's program."""

import pickle
import sys
from collections import Counter, defaultdict
from types import ModuleType

import pytest

from capscope.errors import CapscopeError
from capscope.importers.difnet_vocabulary import SPECIAL, published_vocabulary, read_vocabulary

WORDS = [*SPECIAL, "a", "dog", "zebra"]


@pytest.fixture
def published(monkeypatch):
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
def test_a_pickled_vocabulary_is_read_whatever_the_protocol(published, protocol, tmp_path):
    path = tmp_path / "vocab.pkl"
    path.write_bytes(pickle.dumps(published, protocol))
    found = read_vocabulary(path)
    assert list(found.vocabulary.words) == WORDS
    assert found.counts == dict(published.freqs)
    assert (found.vocabulary.unk, found.vocabulary.pad) == (0, 1)
    assert (found.vocabulary.start, found.vocabulary.end) == (2, 3)
    assert published_vocabulary(found.counts).words == tuple(WORDS)


class Evil:
    def __reduce__(self):
        return print, ("called",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil()), "print, which no vocabulary needs"),
        (pickle.dumps({"itos": [*"abcd"], "freqs": {}}), "the first words are"),
        (pickle.dumps({"itos": 3}), "holds no vocabulary"),
        (pickle.dumps(WORDS)[:-4], "damaged|too early"),
        (b"nothing", "damaged"),
    ],
)
def test_what_is_no_vocabulary_is_refused(content, message, tmp_path, capsys):
    path = tmp_path / "vocab.pkl"
    path.write_bytes(content)
    with pytest.raises(CapscopeError, match=message):
        read_vocabulary(path)
    assert capsys.readouterr().out == ""
