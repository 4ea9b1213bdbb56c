"""Captions to be scored, read from COCO results JSON, and their match with the references."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from capscope.errors import CapscopeError
from capscope.files import read_json

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
