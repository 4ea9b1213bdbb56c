"""The vocabulary: word ids, special words, encoding and decoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from capscope.errors import CapscopeError
from capscope.files import digest

SPECIAL = ("pad", "start", "end", "unk")
VOCABULARY_FILE = "vocabulary.json"


@dataclass(frozen=True)
class Vocabulary:
    """Words by id. The ids of special words may coincide (0 is pad and end) or be None.

    Attributes
    ----------
    words : tuple of str
        The word of each id, special words included.
    pad, start, end, unk : int or None
        Ids of the special words; a vocabulary without `start` or `unk` has None there.
    """

    words: tuple[str, ...]
    pad: int
    start: int | None
    end: int
    unk: int | None

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise CapscopeError(f"vocabulary: the word {twice!r} occurs twice")
        for name in SPECIAL:
            word_id = getattr(self, name)
            missing = word_id is None and name in ("pad", "end")
            if missing or (word_id is not None and not 0 <= word_id < len(self.words)):
                raise CapscopeError(f"vocabulary: {name} = {word_id} is not a word id")

    def __len__(self) -> int:
        """Return the number of ids, special words included."""
        return len(self.words)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special words, which no caption shows."""
        ids = (self.pad, self.start, self.end, self.unk)
        return frozenset(word_id for word_id in ids if word_id is not None)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each ordinary word; special words are not in it."""
        return {w: i for i, w in enumerate(self.words) if i not in self.special_ids}

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return word ids without start and end.

        Unknown words, and words spelt like a special one, become `unk`; a vocabulary without
        `unk` leaves them out.
        """
        found = (self.ids.get(token, self.unk) for token in tokens)
        return [word_id for word_id in found if word_id is not None]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the caption of some word ids: up to `end`, without special words."""
        words = []
        for word_id in ids:
            if word_id == self.end:
                break
            if word_id not in self.special_ids:
                words.append(self.words[word_id])
        return " ".join(words)

    @cached_property
    def sha256(self) -> str:
        """Identify the vocabulary; runs, encoded captions and captions on disk carry it."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, which `from_json` reads."""
        return {"words": list(self.words), **{name: getattr(self, name) for name in SPECIAL}}

    @classmethod
    def from_json(cls, loaded: Mapping[str, Any], where: str = "vocabulary") -> Vocabulary:
        """Rebuild a vocabulary; `where` names its file in errors."""
        if not isinstance(loaded, Mapping) or set(loaded) != {"words", *SPECIAL}:
            raise CapscopeError(f"{where}: expected an object with words, {', '.join(SPECIAL)}")
        words = loaded["words"]
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise CapscopeError(f"{where}: 'words' must be a list of strings")
        special = {name: loaded[name] for name in SPECIAL}
        if not all(value is None or type(value) is int for value in special.values()):
            raise CapscopeError(f"{where}: ids of special words must be whole numbers or null")
        return cls(tuple(words), **special)


def build_vocabulary(sentences: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
    """Build a vocabulary as Sun et al. (Information Fusion 77, 2022) do.

    Words seen `min_count` times or more, in first-seen order, get ids from 1; ``<pad>`` is 0,
    ``<unk>``, ``<start>`` and ``<end>`` follow the last word.

    Parameters
    ----------
    sentences : iterable of sequences of str
        The words of all training references, also of those that are too long to be encoded.
    """
    special = ("<unk>", "<start>", "<end>")
    counts = Counter(word for sentence in sentences for word in sentence)
    reserved = {"<pad>", *special}
    kept = [word for word, count in counts.items() if count >= min_count and word not in reserved]
    if not kept:
        raise CapscopeError(
            f"no word occurs {min_count} times or more in the training references; "
            "lower vocabulary.min_count"
        )
    unk = len(kept) + 1
    return Vocabulary(("<pad>", *kept, *special), pad=0, start=unk + 1, end=unk + 2, unk=unk)
