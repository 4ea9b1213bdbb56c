"""The annotations of DIFNet's program: COCO's captions of 2014, and ids of the captions of splits.

A folder holds ``captions_train2014.json``, ``captions_val2014.json`` and four arrays of caption ids
(``coco_{train,restval,dev,test}_ids.npy``), which are Karpathy's splits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capscope.data.annotations import Dataset, Image
from capscope.data.tokens import clean_text
from capscope.errors import CapscopeError
from capscope.files import read_json

FOLDERS = ("train2014", "val2014")
SPLITS = {
    "train": ("coco_train_ids.npy", "train2014"),
    "restval": ("coco_restval_ids.npy", "val2014"),
    "val": ("coco_dev_ids.npy", "val2014"),
    "test": ("coco_test_ids.npy", "val2014"),
}
"""Array of ids and folder of images of each split."""
PUNCTUATION = frozenset(
    [
        *("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"),
        *(".", "?", "!", ",", ":", "-", "--", "...", ";"),
    ]
)
"""Tokens that are no words. Quotes, brackets and signs are; ``..`` too, an oversight perhaps."""
Tokenizer = Callable[[str], Sequence[str]]


class _Caption(NamedTuple):
    image_id: int
    text: str


def read_annotations(folder: Path, name: str, tokenizer: Tokenizer) -> Dataset:
    """Read the folder as a data set: captions in the order of the ids, under their images.

    Parameters
    ----------
    folder : Path
    name : str
        What the data set is called.
    tokenizer : callable
        Splits a caption in lower case; the original takes the rules of spaCy's English.

    Raises
    ------
    CapscopeError
        Naming the file: one that is missing or of another layout, or an id that it does not have.
    """
    read = {part: _read_captions(folder / f"captions_{part}.json") for part in FOLDERS}
    images: list[Image] = []
    for split, (file, part) in SPLITS.items():
        names, captions = read[part]
        said: dict[int, list[str]] = {}
        for caption_id in _read_ids(folder / file):
            if caption_id not in captions:
                raise CapscopeError(
                    f"{folder / file}: captions_{part}.json has no caption with id {caption_id}"
                )
            caption = captions[caption_id]
            said.setdefault(caption.image_id, []).append(caption.text)
        for image_id, texts in said.items():
            references = tuple(clean_text(text) for text in texts)
            tokens = tuple(tuple(published_tokens(text, tokenizer)) for text in texts)
            place = f"{part}/{names[image_id]}"
            images.append(Image(image_id, place, split, references, tokens))
    return Dataset(name, folder, tuple(images))


def published_tokens(text: str, tokenizer: Tokenizer) -> list[str]:
    """Return the words of a caption: lower case, no punctuation, no blanks (published: words)."""
    tokens = tokenizer(text.lower().rstrip("\n"))
    return [token for token in tokens if token.strip() and token not in PUNCTUATION]


def spacy_rules() -> Tokenizer:
    """Return spaCy's English tokeniser, which needs no model.

    Raises
    ------
    CapscopeError
        spaCy is not installed.
    """
    try:
        spacy: Any = importlib.import_module("spacy")
    except ImportError as error:
        raise CapscopeError(
            "spaCy is not installed: `pip install spacy`, or take `--words treebank`"
        ) from error
    split = spacy.blank("en").tokenizer
    return lambda text: [token.text for token in split(text)]


def _read_captions(path: Path) -> tuple[dict[int, str], dict[int, _Caption]]:
    """Return the file names of images and the captions of a COCO file, both by id."""
    loaded = read_json(path)
    try:
        names = {int(image["id"]): str(image["file_name"]) for image in loaded["images"]}
        captions = {
            int(one["id"]): _Caption(int(one["image_id"]), str(one["caption"]))
            for one in loaded["annotations"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise CapscopeError(f"{path} does not hold COCO's captions ({error!r})") from error
    for caption in captions.values():
        if caption.image_id not in names:
            raise CapscopeError(f"{path}: a caption is of image {caption.image_id}, which it lacks")
    return names, captions


def _read_ids(path: Path) -> list[int]:
    """Return an array of ids; nothing in the file is unpickled."""
    try:
        array: Any = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise CapscopeError(f"{path} does not exist") from None
    except Exception as error:  # damaged files raise many types
        raise CapscopeError(f"{path} is no array of ids ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
        raise CapscopeError(f"{path} is no array of ids: expected one row of whole numbers")
    ids: list[int] = array.tolist()
    return ids
