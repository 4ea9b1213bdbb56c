"""Captions to be scored, read from COCO results JSON, and their match with the references."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from capscope.data.annotations import Dataset, Image
from capscope.data.tokens import tokenize
from capscope.errors import CapscopeError
from capscope.files import read_json
from capscope.metrics.tokenizer import one_line

Id = TypeVar("Id", int, str)
_NAMED = 5  # how many ids an error names


def read_results(path: Path) -> dict[int, str]:
    """Read a COCO results file: a list of ``{"image_id": .., "caption": ".."}``.

    Raises
    ------
    CapscopeError
        Naming the file and the entry: not JSON, not such a list, an id that is no number or
        occurs twice, a caption that is no string. An empty caption is allowed (it scores 0).
    """
    loaded = read_json(path)
    if not isinstance(loaded, list):
        raise CapscopeError(f"{path} is not a COCO results file: expected a list of captions")
    captions: dict[int, str] = {}
    for number, entry in enumerate(loaded):
        if not isinstance(entry, dict):
            raise CapscopeError(f"{path}: entry {number} is not an object")
        image_id, caption = entry.get("image_id"), entry.get("caption")
        if type(image_id) is not int:
            raise CapscopeError(
                f"{path}: entry {number} needs a whole number 'image_id', found {image_id!r}"
            )
        if not isinstance(caption, str):
            raise CapscopeError(
                f"{path}: image {image_id} needs a string 'caption', found {caption!r}"
            )
        if image_id in captions:
            raise CapscopeError(f"{path}: image {image_id} occurs twice; keep one caption of it")
        captions[image_id] = caption
    return captions


def read_references(path: Path) -> Dataset:
    """Read a COCO captions file: ``{"annotations": [{"image_id": .., "caption": ".."}, ..]}``.

    Returns
    -------
    Dataset
        Its images, in the order in which their first caption occurs, as split ``test``.

    Raises
    ------
    CapscopeError
        Naming the file and the entry that is not of this layout.
    """
    loaded = read_json(path)
    entries = loaded.get("annotations") if isinstance(loaded, dict) else None
    if not isinstance(entries, list) or not entries:
        raise CapscopeError(f"{path} is not a COCO captions file: no list 'annotations'")
    captions: dict[int, list[str]] = {}
    for number, entry in enumerate(entries):
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if type(image_id) is not int or not isinstance(entry.get("caption"), str):
            raise CapscopeError(
                f"{path}: annotations[{number}] needs a whole number 'image_id' and a string "
                "'caption'"
            )
        captions.setdefault(image_id, []).append(one_line(entry["caption"]))
    images = [
        Image(image_id, str(image_id), "test", tuple(texts), tuple(map(_words, texts)))
        for image_id, texts in captions.items()
    ]
    return Dataset(path.stem, path.parent, tuple(images))


def _words(text: str) -> tuple[str, ...]:
    return tuple(tokenize(text))


def check_ids(references: Collection[Id], candidates: Collection[Id], where: str) -> None:
    """Check that captions and references are of the same images; the error names both sides."""
    problems = []
    for kind, missing in (
        ("captions without references", set(candidates) - set(references)),
        ("references without a caption", set(references) - set(candidates)),
    ):
        if missing:
            named = ", ".join(map(str, sorted(missing)[:_NAMED]))
            more = ", ..." if len(missing) > _NAMED else ""
            problems.append(f"{len(missing)} {kind} (image ids {named}{more})")
    if problems:
        raise CapscopeError(
            f"{where}: {'; '.join(problems)}. Scores depend on the set of images: caption all of "
            "them, or score against the references of those that have captions"
        )
