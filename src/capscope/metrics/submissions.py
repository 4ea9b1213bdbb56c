"""Scoring captions of any origin: files against files, without a data set or runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from capscope.data.annotations import Dataset
from capscope.errors import CapscopeError
from capscope.metrics.optional import add_optional
from capscope.metrics.plain import read_plain_captions, read_plain_references
from capscope.metrics.results import check_ids, read_references, read_results
from capscope.metrics.rows import NO_SEED, Captions, Row
from capscope.metrics.runs import checked, score

DEFAULTS: Mapping[str, Any] = {
    "metrics": {
        "meteor": True,
        "backend": "fast",
        "tokenizer": "java",
        "parity": False,
        "frequencies": "references",
        "timeout": 300,
        "cache": "auto",
    },
    "benchmarks": {"bootstrap": 1000, "seed": 1},
}
"""What `evaluate_files` needs of the parameters, as ``params.yaml`` has it."""


def evaluate_files(
    references: Sequence[Path],
    candidates: Sequence[Path],
    settings: Mapping[str, Any],
    *,
    plain: bool = False,
    only_captioned: bool = False,
    human: bool = False,
) -> tuple[Dataset, list[Row]]:
    """Score files of captions against references.

    Parameters
    ----------
    references : sequence of Path
        One COCO captions JSON, such as ``captions_val2017.json``; for `plain` see
        `read_plain_references`.
    candidates : sequence of Path
        COCO results JSON, or for `plain` a caption a line; each with one caption for every image
        that has references.
    settings : mapping
        ``metrics`` of the parameters.
    only_captioned : bool
        Score against the references of those images that the first file has captions of.
    human : bool
        Score each reference against the others of its image, too.

    Returns
    -------
    dataset : Dataset
        The references.
    rows : list of Row
        One for each file, named after it.

    Raises
    ------
    CapscopeError
        Naming the file: it cannot be read, or its captions are of other images.
    """
    dataset = _references(references, plain)
    read = read_plain_captions if plain else read_results
    files = [read(path) for path in candidates]
    if only_captioned:
        dataset = _part(dataset, files[0], candidates[0])
    ids = [image.id for image in dataset.images]
    runs = []
    for name, path, captions in zip(_names(candidates), candidates, files, strict=True):
        check_ids(ids, captions, str(path))
        texts = tuple(captions[image_id] for image_id in ids)
        runs.append(checked(Captions(name, "", NO_SEED, "test", texts), path))
    rows = score(dataset, runs, None, settings, human=human)
    return dataset, add_optional(rows, dataset, settings)


def _references(paths: Sequence[Path], plain: bool) -> Dataset:
    if plain:
        return read_plain_references(paths)
    if len(paths) != 1:
        raise CapscopeError(
            "several files of references are for plain text, one reference of each image in each: "
            "add --plain, or give one COCO captions file"
        )
    return read_references(paths[0])


def _part(dataset: Dataset, captions: Mapping[int, str], path: Path) -> Dataset:
    images = tuple(image for image in dataset.images if image.id in captions)
    if not images:
        raise CapscopeError(f"{path}: none of its {len(captions)} captions has references")
    return replace(dataset, images=images)


def _names(paths: Sequence[Path]) -> list[str]:
    """Name files by what tells them apart."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else str(path) for path in paths]
    for name, count in Counter(names).items():
        if count > 1:
            raise CapscopeError(f"the candidates name {name} twice")
    return names
