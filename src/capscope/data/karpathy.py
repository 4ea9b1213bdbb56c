"""Data sets that come as Karpathy JSON and a folder of images, and what is left out of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from capscope.data.annotations import Skipped, read_karpathy
from capscope.data.sources import Source, annotation_files
from capscope.files import write_text
from capscope.params import expand_path

SKIPPED_FILE = "skipped.csv"


def karpathy_source(settings: Mapping[str, Any]) -> Source:
    """Read a Karpathy JSON: readers karpathy, flickr30k and coco2014 (restval counts as train)."""
    files = annotation_files(settings)
    root = expand_path(settings[settings["reader"]]["images"])
    policy = settings["on_unreadable"]
    dataset = read_karpathy(files["annotations"], root, settings["name"], policy=policy)
    return Source(dataset, files)


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write what was left out as CSV: image_id, file, reason."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image_id", "file", "reason"))
    rows.writerows((one.image_id, one.file, one.reason) for one in skipped)
    write_text(path, text.getvalue())
