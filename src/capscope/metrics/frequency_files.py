"""N-gram files: document frequencies that somebody has counted, read and written.

Published ones (``coco-train-words.p``, ``coco-train-idxs.p`` of ruotianluo/cider) are pickles of
``{"document_frequency": {tuple of words: images}, "ref_len": images}``; they are read without
unpickling. Ours are JSON: ``{"ref_len": images, "words": {"a red dog": images, ..}}``, with word
ids (``"12 7 0"``) under ``idxs``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import IO, Any, cast

from tqdm import tqdm

from capscope.errors import CapscopeError
from capscope.files import read_json, write_json
from capscope.metrics.frequencies import DocumentFrequencies
from capscope.metrics.ngrams import ORDERS
from capscope.pickled_data import load_pickled_data

KINDS = ("words", "idxs")
IMAGES = "ref_len"
_PICKLED = "document_frequency"
_PICKLE = b"\x80"
"""First byte of a pickle; no JSON begins so."""


def read_frequencies(path: Path, kind: str = "words") -> DocumentFrequencies:
    """Read an n-gram file, JSON or a published pickle.

    Parameters
    ----------
    path : Path
    kind : {"words", "idxs"}
        N-grams of words (for evaluation), or of word ids as integers (for rewards).

    Raises
    ------
    CapscopeError
        Naming the file and what is wrong with it.
    """
    counts, images = _read_pickle(path) if _is_pickle(path) else _read_json(path, kind)
    if not _is_number(images) or images <= 0:
        raise CapscopeError(
            f"{path}: '{IMAGES}' must be the number of images, a positive number; found {images!r}"
        )
    checked = dict(_entry(path, kind, ngram, count) for ngram, count in counts.items())
    if not checked:
        raise CapscopeError(f"{path} holds no n-gram")
    source = f"document frequencies from {path.name} ({images:g} images)"
    return DocumentFrequencies(checked, float(images), source)


def write_frequencies(path: Path, frequencies: DocumentFrequencies, kind: str = "words") -> None:
    """Write an n-gram file as JSON."""
    counts = {" ".join(map(str, ngram)): count for ngram, count in frequencies.counts.items()}
    write_json(path, {IMAGES: frequencies.images, kind: dict(sorted(counts.items()))}, indent=None)


def is_frequencies(path: Path) -> bool:
    """Tell whether a file is an n-gram file, and not captions to count."""
    if _is_pickle(path):
        return True
    loaded = read_json(path)
    return isinstance(loaded, dict) and IMAGES in loaded


def _is_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(1) == _PICKLE
    except OSError as error:
        raise CapscopeError(f"cannot read {path}: {error.strerror}") from error


def _read_pickle(path: Path) -> tuple[Mapping[Any, Any], Any]:
    with (
        path.open("rb") as stream,
        tqdm.wrapattr(
            stream, "read", path.stat().st_size, desc=path.name, unit="B", unit_scale=True, delay=2
        ) as watched,
    ):
        try:
            loaded = load_pickled_data(cast(IO[bytes], watched))
        except CapscopeError as error:
            raise CapscopeError(f"{path} is not an n-gram file: {error}") from error
    return _parts(path, loaded, _PICKLED)


def _read_json(path: Path, kind: str) -> tuple[Mapping[Any, Any], Any]:
    loaded = read_json(path)
    key = _PICKLED if isinstance(loaded, dict) and _PICKLED in loaded else kind
    counts, images = _parts(path, loaded, key)
    return {tuple(ngram.split(" ")): count for ngram, count in counts.items()}, images


def _parts(path: Path, loaded: Any, key: str) -> tuple[Mapping[Any, Any], Any]:
    counts = loaded.get(key) if isinstance(loaded, dict) else None
    if not isinstance(counts, dict):
        raise CapscopeError(
            f"{path} is not an n-gram file: it needs a mapping '{key}' from n-grams to numbers of "
            f"images, and their total '{IMAGES}'"
        )
    return counts, loaded.get(IMAGES)


def _entry(path: Path, kind: str, ngram: Any, count: Any) -> tuple[tuple[Hashable, ...], float]:
    if not isinstance(ngram, tuple) or not 1 <= len(ngram) <= ORDERS or "" in ngram:
        raise CapscopeError(f"{path}: {ngram!r} is no n-gram of 1 to {ORDERS} words")
    if not _is_number(count) or count < 0:
        raise CapscopeError(f"{path}: {ngram!r} occurs in {count!r} images; expected a number")
    if kind == "idxs":
        try:
            ngram = tuple(int(word) for word in ngram)
        except ValueError as error:
            raise CapscopeError(f"{path}: {ngram!r} is no n-gram of word ids") from error
    return cast(tuple[Hashable, ...], ngram), float(count)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
