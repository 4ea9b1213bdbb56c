"""A data set of one's own: a folder of images, and a CSV file with their captions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capscope.data.annotations import parse_karpathy, relative_path
from capscope.data.sources import Source, annotation_files
from capscope.errors import CapscopeError
from capscope.files import digest
from capscope.params import expand_path

COLUMNS = ("image", "caption")
SPLIT = "split"


def captions_csv_source(settings: Mapping[str, Any]) -> Source:
    """Read a CSV file with a row for each reference.

    Its first line names the columns: ``image``, a path inside the image folder; ``caption``; and,
    if the splits are given, ``split`` (train, val or test; the same in all rows of an image).
    Other columns are passed over. Commas, semicolons or tabs part them. Images are numbered as
    they come.

    Without the column ``split``, the shares ``val`` and ``test`` of the images are drawn by
    ``seed`` and the names of the files: the order of the rows does not matter.

    Parameters
    ----------
    settings : mapping
        ``dataset`` of the parameters.

    Raises
    ------
    CapscopeError
        Naming the file and the line: no such columns, a row with more or fewer fields than columns,
        two splits of one image, too few images to draw splits from, text that is not UTF-8; and
        what `capscope.data.annotations.read_karpathy` refuses.
    """
    own, files = settings["captions_csv"], annotation_files(settings)
    path = files["captions"]
    entries: dict[str, dict[str, Any]] = {}
    for number, row in _rows(path):
        where = f"{path}: line {number}"
        file = relative_path(row["image"].strip(), where)
        entry = entries.setdefault(file, {"cocoid": len(entries) + 1, "filename": file})
        entry.setdefault("sentences", []).append({"raw": row["caption"]})
        if SPLIT in row:
            split = row[SPLIT].strip()
            if entry.setdefault("split", split) != split:
                raise CapscopeError(f"{where}: {file} is of {entry['split']} and of {split}")
    if any("split" not in entry for entry in entries.values()):
        drawn = _draw_splits(list(entries), own, path)
        for file, entry in entries.items():
            entry["split"] = drawn[file]
    dataset = parse_karpathy(
        {"images": list(entries.values())},
        path,
        expand_path(own["images"]),
        settings["name"],
        policy=settings["on_unreadable"],
    )
    return Source(dataset, files)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of the line on which each row ends, and its fields by column."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CapscopeError(
            f"{path}: byte {error.start} is not UTF-8; save the file as CSV in UTF-8"
        ) from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise CapscopeError(
                f"{path}: no column {' and no column '.join(missing)} among those that the first "
                f"line names ({', '.join(header) or 'none'})"
            )
        for row in rows:
            if len(row) == len(header):
                yield rows.line_num, dict(zip(header, row, strict=True))
            elif row:
                raise CapscopeError(
                    f"{path}: line {rows.line_num} has {len(row)} fields, the first line "
                    f"{len(header)}; put a caption that holds {delimiter!r} in double quotes"
                )
    except csv.Error as error:
        raise CapscopeError(f"{path}: line {rows.line_num} is not CSV: {error}") from error


def _draw_splits(names: list[str], own: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Return the split of each image: a share of at least one for val and for test."""
    sizes = {split: max(1, round(own[split] * len(names))) for split in ("val", "test")}
    if sum(sizes.values()) >= len(names):
        raise CapscopeError(
            f"{path} has {len(names)} images: {sizes['val']} for val and {sizes['test']} for test "
            "leave none for train; add images, or name the splits in a column split"
        )
    order = sorted(names, key=lambda name: digest([own["seed"], name]))
    cut = sizes["val"], sizes["val"] + sizes["test"]
    return {
        name: "val" if rank < cut[0] else "test" if rank < cut[1] else "train"
        for rank, name in enumerate(order)
    }
