"""The words of DIFNet's program: its pickled vocabulary (``vocab.pkl``), read and written.

Reading runs nothing (`capscope.pickled_data`), and writing needs none of the program: the file is
put together from the instructions that its objects are made of.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.files import atomic_path
from capscope.pickled_data import load_pickled_data

SPECIAL = ("<unk>", "<pad>", "<bos>", "<eos>")
LARGEST = 1 << 28
"""Bytes of a vocabulary file."""
MODULE, CLASS, UNKNOWN = "data.vocab", "Vocab", "_default_unk_index"
"""The program's class, and its function that gives the id of an unknown word."""
KEYS = ("itos", "freqs")


class Loaded(NamedTuple):
    """What a ``vocab.pkl`` holds."""

    vocabulary: Vocabulary
    counts: dict[str, int]
    """How often each word was counted, rare ones too."""


def read_vocabulary(path: Path) -> Loaded:
    """Read a pickled vocabulary.

    Raises
    ------
    CapscopeError
        The file is too large, damaged, names what no vocabulary needs, or holds none.
    """
    if not path.is_file():
        raise CapscopeError(f"{path} does not exist, or is no file")
    if path.stat().st_size > LARGEST:
        raise CapscopeError(f"{path} is larger than any vocabulary: {path.stat().st_size} bytes")
    try:
        with path.open("rb") as stream:
            found = load_pickled_data(stream, {f"{MODULE}.{CLASS}"})
    except CapscopeError as error:
        raise CapscopeError(f"{path} is no vocabulary that can be read: {error}") from error
    words, counts = (found.get(key) if isinstance(found, dict) else None for key in KEYS)
    texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
    if not texts or not isinstance(counts, dict):
        raise CapscopeError(f"{path} holds no vocabulary: no list itos, or no counts freqs")
    assert isinstance(words, list)
    if tuple(words[: len(SPECIAL)]) != SPECIAL:
        raise CapscopeError(
            f"{path}: the first words are {words[: len(SPECIAL)]}, expected {list(SPECIAL)}"
        )
    return Loaded(published(words[len(SPECIAL) :]), counts)


def write_vocabulary(path: Path, vocabulary: Vocabulary, counts: Mapping[str, int] = {}) -> None:
    """Write words in the order of their ids, and their counts, as the program pickles them."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(_instructions(vocabulary.words, counts)))


def published(words: Sequence[str]) -> Vocabulary:
    """Return the vocabulary of ordinary words in the order of their ids, as published."""
    return Vocabulary((*SPECIAL, *words), pad=1, start=2, end=3, unk=0)


def by_count(words: Sequence[str], counts: Mapping[str, int]) -> list[str]:
    """Return words by falling count, ties in alphabetical order."""
    return sorted(words, key=lambda word: (-counts.get(word, 0), word))


PICKLE = {code.name: code.code.encode("latin-1") for code in pickletools.opcodes}


def _instructions(words: Sequence[str], counts: Mapping[str, int]) -> Iterator[bytes]:
    """Yield a pickle of protocol 3, which the program's Python 3.6 writes."""
    yield PICKLE["PROTO"] + bytes([3])
    yield _named(MODULE, CLASS) + PICKLE["EMPTY_TUPLE"] + PICKLE["NEWOBJ"]
    yield PICKLE["EMPTY_DICT"] + PICKLE["MARK"]
    yield _text("freqs") + _named("collections", "Counter")
    yield from _mapping(counts)
    yield PICKLE["TUPLE1"] + PICKLE["REDUCE"]
    yield _text("itos") + PICKLE["EMPTY_LIST"] + PICKLE["MARK"]
    yield from map(_text, words)
    yield PICKLE["APPENDS"]
    yield _text("stoi") + _named("collections", "defaultdict") + _named(MODULE, UNKNOWN)
    yield PICKLE["TUPLE1"] + PICKLE["REDUCE"]
    yield from _items({word: i for i, word in enumerate(words)})
    yield _text("vectors") + PICKLE["NONE"]
    yield PICKLE["SETITEMS"] + PICKLE["BUILD"] + PICKLE["STOP"]


def _mapping(pairs: Mapping[str, int]) -> Iterator[bytes]:
    yield PICKLE["EMPTY_DICT"]
    yield from _items(pairs)


def _items(pairs: Mapping[str, int]) -> Iterator[bytes]:
    yield PICKLE["MARK"]
    for word, number in pairs.items():
        yield _text(word) + PICKLE["BININT"] + number.to_bytes(4, "little", signed=True)
    yield PICKLE["SETITEMS"]


def _named(module: str, name: str) -> bytes:
    return PICKLE["GLOBAL"] + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return PICKLE["BINUNICODE"] + len(encoded).to_bytes(4, "little") + encoded
