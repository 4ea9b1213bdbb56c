"""Bottom-up features as TSV with base64 fields: the releases with six columns, or with ten.

Six columns (Anderson et al., 2018): image_id, image_w, image_h, num_boxes, boxes, features. Ten
columns (the 36-box files made with py-bottom-up-attention, as for LXMERT): img_id, img_h, img_w
(height first), objects_id, objects_conf, attrs_id, attrs_conf, num_boxes, boxes, features. Arrays
are little endian. A line is about 0.4 MB, a file up to 25 GB: it is read line by line.
"""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from capscope.data.annotations import Image
from capscope.errors import CapscopeError
from capscope.features.importing.hdf5_worker import LARGEST, Array
from capscope.features.importing.sources import (
    NO_REGION,
    DamagedFeaturesError,
    Entry,
    checked_regions,
    files_below,
)
from capscope.features.regions import DETAILS, Regions

LONGEST = 1 << 28
"""Bytes of a line; a longer one is no TSV of features."""
KINDS = ("<i8", "<f4", "<i8", "<f4")
"""Types of the fields that ten columns have besides: those of `DETAILS`, in that order."""


class Place(NamedTuple):
    """Where a line is."""

    file: int
    offset: int
    length: int


class Line(NamedTuple):
    """What a line holds: width and height, boxes (n, 4) in pixels, features (n, D), details."""

    size: tuple[int, int]
    boxes: Array
    cells: Array
    details: dict[str, Array]


class TsvSource:
    """Reads one TSV, or all in a folder.

    Attributes
    ----------
    details : tuple of str
        Which of `capscope.features.regions.DETAILS` the lines have; known after `scan`.
    """

    def __init__(self, path: Path) -> None:
        self.details: tuple[str, ...] = ()
        self._paths = files_below(path, (".tsv", *(f".tsv.{part}" for part in range(10))))
        self._streams: dict[int, BufferedReader] = {}

    def scan(self) -> Iterator[Entry]:
        """Yield the lines of all files in order; every line is read, none is decoded."""
        columns: int | None = None
        whole = sum(path.stat().st_size for path in self._paths)
        with tqdm(total=whole, unit="B", unit_scale=True, desc="reading lines") as progress:
            for number, path in enumerate(self._paths):
                stream, offset, line_number = self._stream(number), 0, 0
                stream.seek(0)
                while line := stream.readline(LONGEST):
                    line_number += 1
                    where = f"{path}, line {line_number}"
                    if len(line) == LONGEST:
                        raise CapscopeError(f"{where} has no end: this is no TSV of features")
                    place = Place(number, offset, len(line))
                    offset += len(line)
                    progress.update(len(line))
                    if not line.strip():
                        continue
                    found = line.count(b"\t") + 1
                    columns = columns or found
                    if found not in (6, 10):
                        raise CapscopeError(f"{where} has {found} columns, expected 6 or 10")
                    if found != columns:
                        raise CapscopeError(f"{where} has {found} columns, the first {columns}")
                    name = line[: line.index(b"\t")].decode("utf-8", "replace").strip()
                    yield Entry(name, where, place, zlib.crc32(line.rstrip(b"\r\n")))
        if columns == 10:
            self.details = tuple(DETAILS)

    def read(self, entry: Entry, image: Image) -> Regions:
        """Return the regions of one line; its own width and height count, not the annotations'."""
        line = self.decode(entry)
        return checked_regions(line.cells, line.boxes, line.size, entry.where, **line.details)

    def decode(self, entry: Entry) -> Line:
        """Return the arrays of one line as they are."""
        place: Place = entry.place
        stream = self._stream(place.file)
        if stream.tell() != place.offset:
            stream.seek(place.offset)
        columns = stream.read(place.length).rstrip(b"\r\n").split(b"\t")
        *details, count_text, boxes_text, cells_text = columns[3:]
        sides = [_whole(text, entry.where) for text in columns[1:3]]
        width, height = sides if len(columns) == 6 else reversed(sides)
        count = _whole(count_text, entry.where)
        if not count:
            raise DamagedFeaturesError(f"{entry.where}: {NO_REGION}")
        boxes = _decode(boxes_text, "<f4", count, "boxes", entry.where)
        cells = _decode(cells_text, "<f4", count, "features", entry.where)
        known = {
            name: _decode(text, kind, count, name, entry.where)[:, 0]
            for text, name, kind in zip(details, DETAILS, KINDS, strict=False)
        }
        return Line((width, height), boxes, cells, known)

    def close(self) -> None:
        """Close the files."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def _stream(self, number: int) -> BufferedReader:
        if number not in self._streams:
            self._streams[number] = self._paths[number].open("rb")
        return self._streams[number]


def _whole(text: bytes, where: str) -> int:
    if not re.fullmatch(rb"\s*\d{1,9}(\.0+)?\s*", text):
        raise DamagedFeaturesError(f"{where}: {text[:20]!r} is no whole number")
    return int(float(text))


def _decode(text: bytes, kind: str, count: int, name: str, where: str) -> Array:
    """Return the array (count, n) of a base64 field."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise DamagedFeaturesError(f"{where}: {name} are not valid base64: {error}") from error
    size = np.dtype(kind).itemsize
    if not data or len(data) % (count * size) or len(data) > LARGEST * size:
        raise DamagedFeaturesError(
            f"{where}: {name} of {len(data)} bytes for {count} boxes; the line is cut or mixed up"
        )
    return np.frombuffer(data, kind).reshape(count, -1)
