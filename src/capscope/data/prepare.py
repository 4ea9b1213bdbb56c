"""Preparing a data set that comes from outside: annotations and images, checked once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from capscope.data.annotations import DATASET_FILE, INSTANCES_FILE, Dataset, karpathy_json
from capscope.data.captions_csv import captions_csv_source
from capscope.data.coco2017 import read_coco2017
from capscope.data.coco_pt import prepare_coco_pt
from capscope.data.entities import instances_of, parse_instances
from capscope.data.flickr_entities import entities_instances, is_entities_folder
from capscope.data.images import IMAGE_SUFFIXES, check_images
from capscope.data.karpathy import SKIPPED_FILE, karpathy_source, write_skipped
from capscope.data.naming import flickr30k_words
from capscope.data.sources import Source, boxes_source, missing_files
from capscope.errors import CapscopeError
from capscope.files import MANIFEST, digest, read_json, write_json, write_manifest

READERS: dict[str, Callable[[Mapping[str, Any]], Source]] = {
    "karpathy": karpathy_source,
    "captions_csv": captions_csv_source,
    "flickr30k": karpathy_source,
    "coco2014": karpathy_source,
    "coco2017": read_coco2017,
}
"""Readers of data sets whose images are files already."""


def prepare_dataset(out: Path, settings: Mapping[str, Any], workers: int = 2) -> Dataset:
    """Check annotations and images, and write the data folder that later steps read.

    Writes ``dataset.json`` (Karpathy layout, clean text, without what was skipped),
    ``instances.json`` (the boxes of these images, if there are any), ``skipped.csv`` and the
    manifest. The images stay where they are; those of ``coco_pt`` become files.

    Parameters
    ----------
    settings : mapping
        ``dataset`` of the parameters. ``on_unreadable`` says whether an unreadable image or an
        empty reference stops everything or is skipped and counted.

    Raises
    ------
    CapscopeError
        Naming the file and the image, or what must be put where; nothing is written then.
    """
    missing = missing_files(settings)
    if missing:
        raise CapscopeError(missing)
    reader, policy = settings["reader"], settings["on_unreadable"]
    if reader == "coco_pt":
        return prepare_coco_pt(out, settings, workers)
    dataset, files = READERS[reader](settings)
    for split in settings["evaluate"]:
        if not dataset.split(split):
            raise CapscopeError(f"{dataset.name} has no image of split {split!r} to evaluate")
    _require_folders(dataset)
    images, unreadable = check_images(dataset, dataset.images, policy=policy, workers=workers)
    if not images:
        raise CapscopeError(
            f"none of the {len(dataset.images)} images below {dataset.root} can be read"
        )
    listed = dataset
    dataset = replace(dataset, images=images, skipped=(*dataset.skipped, *unreadable))
    path = boxes_source(settings)
    boxes = None if path is None else _boxes(path, dataset)
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
        params={key: settings[key] for key in ("name", "reader", reader, "on_unreadable")},
        inputs=files,
        image_files_sha256=_fingerprint(dataset),
        image_files_without_annotation=_strangers(listed),
        images=dict(Counter(image.split for image in dataset.images)),
        references=sum(len(image.references) for image in dataset.images),
        references_cleaned=dataset.cleaned,
        skipped=len(dataset.skipped),
    )
    return dataset


def _require_folders(dataset: Dataset) -> None:
    """Refuse annotations of folders that are not there: skipping all their images helps nobody."""
    counts = Counter(image.file.rpartition("/")[0] for image in dataset.images)
    for folder, count in counts.items():
        if not (dataset.root / folder).is_dir():
            raise CapscopeError(
                f"{dataset.root / folder} is not a folder; {count} images of {dataset.name} are to "
                "be in it"
            )


def _fingerprint(dataset: Dataset) -> str:
    """Identify the image files by name and size, so that other pictures make another manifest."""
    return digest([(one.file, dataset.path(one).stat().st_size) for one in dataset.images])


def _strangers(dataset: Dataset) -> int:
    """Count the image files beside those of `dataset` that no annotation is of.

    They do no harm; thousands of them say that annotations and images do not belong together.
    """
    known = {image.file for image in dataset.images} | {one.file for one in dataset.skipped}
    folders = {file.rpartition("/")[0] for file in known}
    return sum(
        (f"{folder}/{path.name}" if folder else path.name) not in known
        for folder in folders
        for path in (dataset.root / folder).iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
    )


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
