"""COCO 2017 with the splits of Sun et al. (Information Fusion 77, 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capscope.data.annotations import parse_karpathy
from capscope.data.sources import COCO2017_PARTS, Source, annotation_files
from capscope.errors import CapscopeError
from capscope.files import read_json
from capscope.params import expand_path


def read_coco2017(settings: Mapping[str, Any]) -> Source:
    """Read COCO's captions of 2017.

    The images of train2017, sorted by id, are ``train`` (the first 110,000, see
    ``coco2017.train``) and ``val`` (the others, 8,287); val2017 is ``test``, in its own order.
    Words are `capscope.data.tokens.tokenize`, as there.

    Parameters
    ----------
    settings : mapping
        ``dataset`` of the parameters.

    Raises
    ------
    CapscopeError
        Naming the file: not COCO captions, an image twice, a caption of an unknown image, no image
        left for ``val``; and what `capscope.data.annotations.read_karpathy` refuses.
    """
    own = settings["coco2017"]
    files = {
        name: path
        for name, path in annotation_files(settings).items()
        if name.startswith("captions_")
    }
    train_file, test_file = (files[f"captions_{part}"] for part in COCO2017_PARTS)
    published = _entries(train_file, COCO2017_PARTS[0])
    ordered = sorted(published, key=lambda entry: entry["cocoid"])
    if own["train"] >= len(ordered):
        raise CapscopeError(
            f"{train_file} has {len(ordered)} images: dataset.coco2017.train = {own['train']} "
            "leaves none for the split val"
        )
    for number, entry in enumerate(ordered):
        entry["split"] = "train" if number < own["train"] else "val"
    test = [{**entry, "split": "test"} for entry in _entries(test_file, COCO2017_PARTS[1])]
    dataset = parse_karpathy(
        {"images": [*ordered, *test]},
        train_file.with_name("captions_{train,val}2017.json"),
        expand_path(own["images"]),
        settings["name"],
        policy=settings["on_unreadable"],
    )
    return Source(dataset, annotation_files(settings))


def _entries(path: Path, folder: str) -> list[dict[str, Any]]:
    """Return the images of a COCO captions JSON as entries of the Karpathy layout."""
    loaded = read_json(path)
    images, captions = (_list_of_objects(loaded, key, path) for key in ("images", "annotations"))
    entries: dict[int, dict[str, Any]] = {}
    for image in images:
        identifier = image.get("id")
        if type(identifier) is not int:
            raise CapscopeError(f"{path}: an image has the id {identifier!r}, no whole number")
        if identifier in entries:
            raise CapscopeError(f"{path}: image id {identifier} occurs twice")
        entries[identifier] = {
            "filename": image.get("file_name"),
            "filepath": folder,
            "cocoid": identifier,
            "width": image.get("width"),
            "height": image.get("height"),
            "sentences": [],
        }
    for caption in captions:
        entry = entries.get(caption.get("image_id", -1))
        if entry is None:
            raise CapscopeError(
                f"{path}: caption {caption.get('id')} is of unknown image {caption.get('image_id')}"
            )
        entry["sentences"].append({"raw": caption.get("caption")})
    return list(entries.values())


def _list_of_objects(loaded: Any, key: str, path: Path) -> list[dict[str, Any]]:
    found = loaded.get(key) if isinstance(loaded, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise CapscopeError(f"{path} is not COCO captions JSON: no list of objects '{key}'")
    return found
