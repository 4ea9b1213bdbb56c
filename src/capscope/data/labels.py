"""Label files of the self-critical captioning programs: JSON with the words, HDF5 with their ids.

The JSON holds ``ix_to_word`` ({"1": word, ...}) and ``images``, the HDF5 file ``labels``,
``label_length`` and the first and last row of each image, counted from 1. The id 0 is start, end
and padding at once; the unknown word, where there is one, comes last.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capscope.data.annotations import Image
from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.files import atomic_path, read_json, write_json

UNKNOWN = "UNK"
SILENCE = "<end>"
"""The word of id 0, which no caption shows."""
ROWS = ("labels", "label_length", "label_start_ix", "label_end_ix")


class Labels(NamedTuple):
    """What a pair of label files holds."""

    vocabulary: Vocabulary
    captions: EncodedCaptions
    images: tuple[Mapping[str, Any], ...]
    """Of each image ``id``, ``split`` and ``file_path``, in the order of the captions."""


def published_labels(images: Sequence[Image], threshold: int = 5, max_length: int = 16) -> Labels:
    """Encode references as the published script does.

    Words that occur more than `threshold` times, in all splits together, make the vocabulary, in
    the order of their first occurrence; longer references are cut to `max_length` words.

    Raises
    ------
    CapscopeError
        An image without references, or a reference without words.
    """
    counts = Counter(word for image in images for words in image.tokens for word in words)
    kept = [word for word, count in counts.items() if count > threshold]
    if len(kept) < len(counts):
        kept.append(UNKNOWN)
    vocabulary = vocabulary_of(kept)
    numbers = {word: i + 1 for i, word in enumerate(kept)}
    rows: list[list[int]] = []
    for image in images:
        if not image.tokens or not all(image.tokens):
            raise CapscopeError(f"image {image.id} has no reference, or one without words")
        for words in image.tokens:
            known = [word if word in numbers else UNKNOWN for word in words]
            rows.append([numbers[word] for word in known][:max_length])
    table = np.zeros((len(rows), max_length), np.uint32)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    last = np.cumsum([len(image.tokens) for image in images], dtype=np.int64)
    captions = EncodedCaptions(
        image_ids=np.array([image.id for image in images], np.int64),
        labels=table,
        lengths=np.array([len(ids) for ids in rows], np.int64),
        first=last - np.array([len(image.tokens) for image in images]) + 1,
        last=last,
        vocabulary_sha256=vocabulary.sha256,
    )
    described = tuple(
        {"split": image.split, "file_path": image.file, "id": image.id} for image in images
    )
    return Labels(vocabulary, captions, described)


def vocabulary_of(words: Sequence[str]) -> Vocabulary:
    """Return the vocabulary of words with the ids 1, 2, ..."""
    unknown = len(words) if words and words[-1] == UNKNOWN else None
    return Vocabulary((SILENCE, *words), pad=0, start=None, end=0, unk=unknown)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the ``ix_to_word`` of a label JSON."""
    loaded = read_json(path)
    return numbered_words(loaded.get("ix_to_word") if isinstance(loaded, dict) else None, path)


def numbered_words(found: Any, where: Path) -> Vocabulary:
    """Return the vocabulary of a mapping from "1", "2", ... to words."""
    if not isinstance(found, Mapping) or set(map(str, found)) != {
        str(i + 1) for i in range(len(found))
    }:
        raise CapscopeError(
            f"{where} has no vocabulary: expected `ix_to_word` (`vocab` in infos), an object with "
            'the keys "1", "2", ..., each once'
        )
    words = {str(key): word for key, word in found.items()}
    if not all(isinstance(word, str) for word in words.values()):
        raise CapscopeError(f"{where}: the words of `ix_to_word` must be texts")
    return vocabulary_of([words[str(i + 1)] for i in range(len(words))])


def read_labels(words: Path, labels: Path) -> Labels:
    """Read a pair of label files.

    Raises
    ------
    CapscopeError
        Naming the file: not of this layout, ids beyond the vocabulary, pointers that do not fit, or
        another number of images than the other file has.
    """
    import h5py

    vocabulary = read_vocabulary(words)
    images = read_json(words).get("images")
    if not isinstance(images, list) or not all(
        isinstance(one, dict) and "id" in one and "split" in one for one in images
    ):
        raise CapscopeError(f"{words}: expected `images`, a list of objects with id and split")
    try:
        with h5py.File(labels, "r") as file:
            table, lengths, first, last = (file[name][()].astype(np.int64) for name in ROWS)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CapscopeError(f"{labels} is not a file of labels: {error}") from error
    if len(first) != len(images) or len(last) != len(images):
        raise CapscopeError(
            f"{labels} has references of {len(first)} images, but {words} lists {len(images)}: "
            "they are not of one run of the script"
        )
    if table.size and int(table.max()) >= len(vocabulary):
        raise CapscopeError(
            f"{labels} holds the word id {int(table.max())}, but {words} has {len(vocabulary) - 1} "
            "words: they are not of one run of the script"
        )
    whole = table.ndim == 2 and len(lengths) == len(table) and len(first) > 0
    joined = whole and first[0] == 1 and last[-1] == len(table)
    joined = joined and (first[1:] == last[:-1] + 1).all()
    if not joined or not (last >= first).all():
        raise CapscopeError(
            f"{labels}: label_start_ix and label_end_ix do not divide its {len(table)} rows among "
            "the images"
        )
    if not (lengths == (table > 0).sum(1)).all():
        raise CapscopeError(f"{labels}: label_length is not the number of words in each row")
    ids = np.array([int(one["id"]) for one in images], np.int64)
    captions = EncodedCaptions(
        ids, table.astype(np.uint32), lengths, first, last, vocabulary.sha256
    )
    return Labels(vocabulary, captions, tuple(images))


def write_labels(words: Path, labels: Path, content: Labels) -> None:
    """Write a pair of label files, which the original programs read."""
    import h5py

    numbered = {str(i): word for i, word in enumerate(content.vocabulary.words) if i}
    captions = content.captions
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in zip(
            ROWS, (captions.labels, captions.lengths, captions.first, captions.last), strict=True
        ):
            file.create_dataset(name, data=values.astype(np.uint32))
    with atomic_path(labels) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    write_json(words, {"ix_to_word": numbered, "images": [dict(one) for one in content.images]})
