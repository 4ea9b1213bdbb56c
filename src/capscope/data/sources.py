"""What a data set is read from: which files there must be, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from capscope.data.annotations import Dataset
from capscope.errors import CapscopeError
from capscope.params import expand_path

FLICKR30K_FORM = "https://shannon.cs.illinois.edu/DenotationGraph/"
"""Where the images of Flickr30K are asked for."""

FILES: dict[str, dict[str, bool]] = {
    "scenes": {},
    "karpathy": {"annotations": False, "images": True},
    "captions_csv": {"captions": False, "images": True},
    "flickr30k": {"annotations": False, "images": True},
    "coco2014": {"annotations": False, "images": True},
    "coco2017": {"annotations": True, "images": True},
    "coco_pt": {"file": False},
}
"""Of each reader: parameter -> whether it is a folder. `instances` may be either, or null."""
_ADVICE = {
    "flickr30k": f"The images of Flickr30K are given on request only: fill in the form at "
    f"{FLICKR30K_FORM}, and unpack them into the folder that is named above.",
    "coco_pt": "`capscope export coco_pt` makes such a file from COCO 2014, or any other data set.",
}
COCO2017_PARTS = ("train2017", "val2017")
"""Published parts of COCO 2017: captions_<part>.json, and a folder of images each."""


class Source(NamedTuple):
    """A data set as it is published.

    Attributes
    ----------
    dataset : Dataset
    files : dict of str to Path
        The annotations that it was read from, by name.
    """

    dataset: Dataset
    files: dict[str, Path]


def annotation_files(settings: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files whose change makes another data set; ``dataset`` of the parameters.

    Folders (of images, or of Flickr30K Entities) are not among them.
    """
    reader = settings["reader"]
    own = settings[reader]
    if reader == "coco2017":
        folder = _set(settings, "annotations")
        found = {f"captions_{part}": folder / f"captions_{part}.json" for part in COCO2017_PARTS}
    else:
        found = {key: _set(settings, key) for key, folder in FILES[reader].items() if not folder}
    if own.get("instances") and not expand_path(own["instances"]).is_dir():
        found["instances"] = expand_path(own["instances"])
    return found


def missing_files(settings: Mapping[str, Any]) -> str:
    """Say which files of a data set are not there, and how to get them; nothing if all are."""
    reader = settings["reader"]
    folders = [_set(settings, key) for key, folder in FILES[reader].items() if folder]
    problems = [f"  {path} is not a folder" for path in folders if not path.is_dir()]
    files = annotation_files(settings).values()
    problems += [f"  {path} does not exist" for path in files if not path.is_file()]
    if not problems:
        return ""
    lines = [f"data set {settings['name']} (reader {reader}) is not complete:", *problems]
    if settings["downloads"]:
        lines.append("`capscope data --download`, or `snakemake download_data`, fetches:")
        for one in settings["downloads"]:
            target = f"unpacked into {expand_path(one['unpack'])}" if one["unpack"] else "as it is"
            lines.append(f"  {expand_path(one['file'])}, {target}, from {one['addresses'][0]}")
        lines.append("Without a network, fetch these files elsewhere and put them there.")
    if reader in _ADVICE:
        lines.append(_ADVICE[reader])
    return "\n".join(lines)


def boxes_source(settings: Mapping[str, Any]) -> Path | None:
    """Return the COCO instances JSON or the folder of Flickr30K Entities, if one is named."""
    named = settings[settings["reader"]].get("instances")
    return expand_path(named) if named else None


def _set(settings: Mapping[str, Any], key: str) -> Path:
    reader = settings["reader"]
    value = settings[reader][key]
    if not value:
        raise CapscopeError(f"dataset.{reader}.{key} is not set; reader {reader} needs it")
    return expand_path(value)
