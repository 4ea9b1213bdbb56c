"""References as word ids, in one HDF5 file."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capscope.data.annotations import Dataset, Image, open_dataset
from capscope.data.vocabulary import VOCABULARY_FILE, Vocabulary, build_vocabulary
from capscope.errors import CapscopeError
from capscope.files import (
    MANIFEST,
    atomic_path,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)

CAPTIONS_FILE = "captions.h5"
Words = tuple[str, ...]
Draw = Callable[[Sequence[Words]], Sequence[Words]]
"""Chooses among the references of one image that are short enough."""


@dataclass(frozen=True)
class EncodedCaptions:
    """References of N images as word ids, M in all, without start and end.

    Attributes
    ----------
    image_ids : (N,) int64
    labels : (M, L) uint16 or uint32
        Word ids, zeros after the last word.
    lengths : (M,) int64
        Words in each reference.
    first, last : (N,) int64
        Rows of each image in `labels`, counted from 1, both inclusive.
    vocabulary_sha256 : str
        The vocabulary of the word ids.
    """

    image_ids: NDArray[np.int64]
    labels: NDArray[Any]
    lengths: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    vocabulary_sha256: str

    @cached_property
    def _position(self) -> dict[int, int]:
        return {image_id: position for position, image_id in enumerate(self.image_ids.tolist())}

    def __contains__(self, image_id: int) -> bool:
        """Say whether an image has an encoded reference."""
        return image_id in self._position

    def rows_of(self, image_id: int) -> range:
        """Return the rows of an image in `labels` and `lengths`."""
        if image_id not in self._position:
            raise CapscopeError(f"no encoded reference of image {image_id}")
        position = self._position[image_id]
        return range(int(self.first[position]) - 1, int(self.last[position]))


def encode_captions(
    images: Iterable[Image], vocabulary: Vocabulary, max_length: int, draw: Draw | None = None
) -> EncodedCaptions:
    """Encode the references of `images`, those of at most `max_length` words.

    An image whose references are all longer is left out.

    Parameters
    ----------
    draw : callable, optional
        What to keep of the references of an image; all of them, in order, by default.
        `published_draw` gives the published choice.
    """
    image_ids, counts = [], []
    encoded: list[list[int]] = []
    for image in images:
        short = [words for words in image.tokens if len(words) <= max_length]
        chosen = draw(short) if draw and short else short
        rows = [ids for words in chosen if (ids := vocabulary.encode(words))]
        if rows:
            image_ids.append(image.id)
            counts.append(len(rows))
            encoded.extend(rows)
    if not encoded:
        raise CapscopeError(f"no reference has at most {max_length} words; raise max_length")
    dtype = np.uint16 if len(vocabulary) <= 2**16 else np.uint32
    labels = np.zeros((len(encoded), max_length), dtype)
    for row, ids in zip(labels, encoded, strict=True):
        row[: len(ids)] = ids
    last = np.cumsum(counts, dtype=np.int64)
    return EncodedCaptions(
        image_ids=np.array(image_ids, np.int64),
        labels=labels,
        lengths=np.array([len(ids) for ids in encoded], np.int64),
        first=last - np.array(counts) + 1,
        last=last,
        vocabulary_sha256=vocabulary.sha256,
    )


def write_captions(path: Path, captions: EncodedCaptions) -> None:
    """Write ``captions.h5`` in the layout of ORT's labels, plus ``image_ids``."""
    import h5py

    content = io.BytesIO()  # HDF5 itself does not survive a full disk
    with h5py.File(content, "w") as file:
        file.attrs["vocabulary_sha256"] = captions.vocabulary_sha256
        file["labels"] = captions.labels
        file["label_length"] = captions.lengths.astype(np.uint32)
        file["label_start_ix"] = captions.first.astype(np.uint32)
        file["label_end_ix"] = captions.last.astype(np.uint32)
        file["image_ids"] = captions.image_ids
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_captions(path: Path, vocabulary: Vocabulary) -> EncodedCaptions:
    """Read ``captions.h5``; its word ids must be those of `vocabulary`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            captions = EncodedCaptions(
                image_ids=file["image_ids"][()].astype(np.int64),
                labels=file["labels"][()],
                lengths=file["label_length"][()].astype(np.int64),
                first=file["label_start_ix"][()].astype(np.int64),
                last=file["label_end_ix"][()].astype(np.int64),
                vocabulary_sha256=str(file.attrs["vocabulary_sha256"]),
            )
    except (OSError, KeyError, RuntimeError) as error:
        raise CapscopeError(f"{path} is not a file of encoded captions: {error}") from error
    if captions.vocabulary_sha256 != vocabulary.sha256:
        raise CapscopeError(
            f"{path} was encoded with another vocabulary ({captions.vocabulary_sha256[:12]}) than "
            f"this one ({vocabulary.sha256[:12]}): run `capscope vocabulary` again"
        )
    return captions


def published_draw(count: int = 5, seed: int = 123) -> Draw:
    """Return the draw of Sun et al.: `count` references an image, in random order.

    Fewer are filled up by drawing again. The state of the generator runs on from image to image,
    so images must come in the published order: train (with restval), val, test.
    """
    generator = random.Random(seed)

    def draw(references: Sequence[Words]) -> Sequence[Words]:
        if len(references) < count:
            missing = count - len(references)
            return [*references, *(generator.choice(references) for _ in range(missing))]
        return generator.sample(list(references), count)

    return draw


def published_items(
    dataset: Dataset, vocabulary: Vocabulary, max_length: int, image_root: str, count: int = 5
) -> dict[str, list[dict[str, Any]]]:
    """Return the items of the published ``{train,val,test}_imagecap_*.json`` files.

    Captions have start and end and are padded to ``max_length + 2``; a train item is one caption,
    a val or test item one image.
    """
    draw = published_draw(count)
    items: dict[str, list[dict[str, Any]]] = {}
    for split in ("train", "val", "test"):
        items[split] = []
        for image in dataset.split(split):
            short = [words for words in image.tokens if len(words) <= max_length]
            if not short:
                continue
            ids = [vocabulary.encode(words) for words in draw(short)]
            framed = [[vocabulary.start, *row, vocabulary.end] for row in ids]
            padded = [row + [vocabulary.pad] * (max_length + 2 - len(row)) for row in framed]
            item = {"image_path": f"{image_root}/{image.file}", "encoded_all_caps": padded}
            if split == "train":
                for row, filled in zip(framed, padded, strict=True):
                    one = {"encoded_cap": filled, "caption_len": len(row)}
                    items[split].append(item | one)
            else:
                items[split].append(item | {"caption_len": [len(row) for row in framed]})
    return items


def prepare_captions(out: Path, data_dir: Path, params: Mapping[str, Any], system: str) -> None:
    """Write ``vocabulary.json`` and ``captions.h5`` of a system, and the manifest.

    The vocabulary is built from the train split, or is the one that the data set came with
    (``words: given``); the references of all splits are encoded.
    """
    if system not in params["systems"]:
        known = ", ".join(params["systems"])
        raise CapscopeError(f"params: no system {system!r} in systems; there are: {known}")
    settings = params["systems"][system]["vocabulary"]
    dataset = open_dataset(data_dir, params)
    train = dataset.split("train")
    if settings.get("words") == "given":
        vocabulary = _given(data_dir)
    else:
        vocabulary = build_vocabulary(
            (words for image in train for words in image.tokens), settings["min_count"]
        )
    images: Sequence[Image] = dataset.images
    draw = None
    if settings["references"] == "published":
        images = [*train, *dataset.split("val"), *dataset.split("test")]
        draw = published_draw()
    max_length = settings["max_length"]
    captions = encode_captions(images, vocabulary, max_length, draw)
    (out / MANIFEST).unlink(missing_ok=True)
    write_json(out / VOCABULARY_FILE, vocabulary.to_json())
    write_captions(out / CAPTIONS_FILE, captions)
    lengths = [len(words) for image in images for words in image.tokens]
    write_manifest(
        out,
        "vocabulary",
        params=settings,
        inputs={"data": data_dir / MANIFEST},
        words=len(vocabulary),
        vocabulary_sha256=vocabulary.sha256,
        images=len(captions.image_ids),
        images_without_short_reference=len(images) - len(captions.image_ids),
        references=len(captions.labels),
        references_too_long=sum(length > max_length for length in lengths),
    )


def _given(data_dir: Path) -> Vocabulary:
    path = data_dir / VOCABULARY_FILE
    if not path.exists():
        raise CapscopeError(
            f"{data_dir} has no {VOCABULARY_FILE}: this data set came without a vocabulary (reader "
            "coco_pt has one); set vocabulary.words to train"
        )
    return Vocabulary.from_json(read_json(path), str(path))


def open_captions(folder: Path) -> tuple[Vocabulary, EncodedCaptions]:
    """Open what ``capscope vocabulary`` made."""
    read_manifest(folder, "vocabulary")
    path = folder / VOCABULARY_FILE
    vocabulary = Vocabulary.from_json(read_json(path), str(path))
    return vocabulary, read_captions(folder / CAPTIONS_FILE, vocabulary)
