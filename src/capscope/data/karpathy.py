"""Preparing a data set that comes as Karpathy JSON and a folder of images."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from capscope.data.annotations import (
    DATASET_FILE,
    INSTANCES_FILE,
    Dataset,
    Skipped,
    karpathy_json,
    read_karpathy,
)
from capscope.data.entities import instances_of, parse_instances
from capscope.data.flickr_entities import entities_instances, is_entities_folder
from capscope.data.images import check_images
from capscope.data.naming import flickr30k_words
from capscope.errors import CapscopeError
from capscope.files import MANIFEST, digest, read_json, write_json, write_manifest, write_text
from capscope.params import expand_path

SKIPPED_FILE = "skipped.csv"


def prepare_karpathy(out: Path, settings: Mapping[str, Any], workers: int = 2) -> Dataset:
    """Check annotations and images, and write the data folder that later steps read.

    Writes ``dataset.json`` (Karpathy layout, clean text, without what was skipped),
    ``instances.json`` (the boxes of these images, if there are any), ``skipped.csv`` and the
    manifest. The images stay where they are.

    Parameters
    ----------
    settings : mapping
        ``dataset`` of the parameters. ``on_unreadable`` says whether an unreadable image or an
        empty reference stops everything or is skipped and counted.

    Raises
    ------
    CapscopeError
        Naming the file and the image; nothing is written then.
    """
    sources, policy = settings["karpathy"], settings["on_unreadable"]
    for key in ("annotations", "images"):
        if not sources[key]:
            raise CapscopeError(f"dataset.karpathy.{key} is not set; reader karpathy needs it")
    annotations, root = expand_path(sources["annotations"]), expand_path(sources["images"])
    if not root.is_dir():
        raise CapscopeError(f"dataset.karpathy.images: {root} is not a folder")
    dataset = read_karpathy(annotations, root, settings["name"], policy=policy)
    for split in settings["evaluate"]:
        if not dataset.split(split):
            raise CapscopeError(f"{annotations} has no image of split {split!r} to evaluate")
    images, unreadable = check_images(dataset, dataset.images, policy=policy, workers=workers)
    if not images:
        raise CapscopeError(f"none of the {len(dataset.images)} images below {root} can be read")
    dataset = replace(dataset, images=images, skipped=(*dataset.skipped, *unreadable))
    inputs = {"annotations": annotations}
    boxes = None
    if sources["instances"]:
        path = expand_path(sources["instances"])
        boxes = _boxes(path, dataset)
        if path.is_file():
            inputs["instances"] = path
    (out / MANIFEST).unlink(missing_ok=True)
    write_json(out / DATASET_FILE, karpathy_json(dataset))
    if boxes is None:
        (out / INSTANCES_FILE).unlink(missing_ok=True)
    else:
        write_json(out / INSTANCES_FILE, boxes)
    write_skipped(out / SKIPPED_FILE, dataset.skipped)
    write_manifest(
        out,
        "data",
        params={key: settings[key] for key in ("name", "reader", "karpathy", "on_unreadable")},
        inputs=inputs,
        image_files_sha256=_fingerprint(dataset),
        images=dict(Counter(image.split for image in dataset.images)),
        references=sum(len(image.references) for image in dataset.images),
        references_cleaned=dataset.cleaned,
        skipped=len(dataset.skipped),
    )
    return dataset


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write what was left out as CSV: image_id, file, reason."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image_id", "file", "reason"))
    rows.writerows((one.image_id, one.file, one.reason) for one in skipped)
    write_text(path, text.getvalue())


def _fingerprint(dataset: Dataset) -> str:
    """Identify the image files by name and size, so that other pictures make another manifest."""
    return digest([(one.file, dataset.path(one).stat().st_size) for one in dataset.images])


def _boxes(path: Path, dataset: Dataset) -> dict[str, Any]:
    """Return the boxes of the images, from COCO instances or a folder of Flickr30K Entities."""
    if is_entities_folder(path):
        files = {image.id: image.file for image in dataset.images}
        return entities_instances(path, files, flickr30k_words().named)
    loaded = read_json(path)
    known = parse_instances(loaded, str(path)).pictures.keys()
    ids = {image.id for image in dataset.images}
    if not ids & known:
        raise CapscopeError(f"{path} and the annotations have no image id in common")
    return instances_of(loaded, ids)
