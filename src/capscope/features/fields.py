"""Contiguous arrays of one HDF5 file: written in place, read through a memory map.

HDF5 tells where a contiguous array starts in the file, and a memory map reads any rows from there
without HDF5 in between. The arrays are also written at that place, so that a full disk shows as
such, and compared with what was written before the file gets its name.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from capscope.errors import CapscopeError
from capscope.files import atomic_path


class Field(NamedTuple):
    """An array with one row an image.

    Attributes
    ----------
    shape : tuple of int
        Of one row.
    dtype : str
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class FieldWriter:
    """Writes rows of all fields in the order of the ids; made by `create_fields`.

    Parameters
    ----------
    note : mapping, optional
        ``done`` and ``checksums`` of an earlier writer of the same file, whose rows are kept if
        they are as they were.
    """

    def __init__(
        self,
        path: Path,
        ids: NDArray[np.int64],
        fields: Mapping[str, Field],
        attributes: Mapping[str, Any],
        note: Mapping[str, Any] | None = None,
    ) -> None:
        self.ids, self.fields = ids, dict(fields)
        self.done = 0
        self.checksums = dict.fromkeys(fields, 0)
        self._offsets: dict[str, int] = {}
        if note is None or not self._taken_up(path, note):
            self._lay_out(path, attributes)
        self._file = os.open(path, os.O_RDWR)

    def _lay_out(self, path: Path, attributes: Mapping[str, Any]) -> None:
        """Make the file with room for all rows."""
        needed = len(self.ids) * sum(field.row_bytes for field in self.fields.values())
        os.truncate(path, 0)
        os.truncate(path, needed)  # refused here beyond a limit; HDF5 crashes on such errors
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)  # the same features give the same bytes
        with h5py.File(path, "w", locking=False) as file:
            file["ids"] = self.ids
            file.attrs["attributes"] = json.dumps(dict(attributes))
            for name, field in self.fields.items():
                space = h5py.h5s.create_simple((len(self.ids), *field.shape))
                kind = h5py.h5t.py_create(np.dtype(field.dtype))
                dataset = h5py.h5d.create(file.id, name.encode(), kind, space, layout)
                self._offsets[name] = int(dataset.get_offset())

    def _taken_up(self, path: Path, note: Mapping[str, Any]) -> bool:
        """Go on with a file whose first rows are as `note` says; otherwise say no."""
        try:
            ids, arrays, _ = map_fields(path)
            with h5py.File(path, "r", locking=False) as file:
                self._offsets = {name: int(file[name].id.get_offset()) for name in self.fields}
        except (CapscopeError, OSError, KeyError):
            return False
        done = note["done"]
        if not np.array_equal(ids, self.ids) or any(
            _checksum(arrays[name][:done]) != note["checksums"][name] for name in self.fields
        ):
            return False
        self.done, self.checksums = done, dict(note["checksums"])
        return True

    def append(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the rows of the next images; every field, each (B, ...) and finite.

        Raises
        ------
        ValueError
            A field is missing or unknown, or rows do not fit.
        CapscopeError
            Naming the image with a value that is not finite as the field's type.
        """
        if set(arrays) != set(self.fields):
            raise ValueError(f"fields {sorted(arrays)} do not fit {sorted(self.fields)}")
        count = len(next(iter(arrays.values())))
        ids = self.ids[self.done : self.done + count]
        blocks = {}
        for name, field in self.fields.items():
            with np.errstate(over="ignore"):  # an overflow is reported below, with the image
                rows = np.ascontiguousarray(arrays[name], field.dtype)
            if rows.shape != (len(ids), *field.shape) or len(ids) < count:
                raise ValueError(f"{name} of shape {rows.shape} do not fit {field.shape}")
            _check_finite(name, ids, rows)
            blocks[name] = rows
        for name, rows in blocks.items():
            data = rows.data.cast("B")
            self.checksums[name] = zlib.crc32(data, self.checksums[name])
            place = self._offsets[name] + self.done * self.fields[name].row_bytes
            while data:
                written = os.pwrite(self._file, data, place)
                data, place = data[written:], place + written
        self.done += count

    def sync(self) -> None:
        """Bring what was written to the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def verify(self, path: Path) -> None:
        """Compare the file with what was appended; what a disk swallowed is found here."""
        if self.done != len(self.ids):
            raise ValueError(f"only {self.done} of {len(self.ids)} images were written")
        ids, arrays, _ = map_fields(path)
        for name, array in arrays.items():
            if _checksum(array) != self.checksums[name] or not np.array_equal(ids, self.ids):
                raise CapscopeError(
                    f"{path} reads back differently from what was written; check the disk"
                )


def _checksum(array: NDArray[Any]) -> int:
    checksum = 0
    for start in range(0, len(array), 256):
        rows = array[start : start + 256]
        checksum = zlib.crc32(np.ascontiguousarray(rows).data.cast("B"), checksum)
    return checksum


def _check_finite(name: str, ids: NDArray[np.int64], rows: NDArray[Any]) -> None:
    if rows.dtype.kind != "f":
        return
    for image_id, row in zip(ids, rows, strict=True):
        if not np.isfinite(row).all():
            raise CapscopeError(
                f"image {image_id}: features are infinite or not a number as {rows.dtype} "
                f"({name}); write them as float32 (features.*.dtype), or check where they are from"
            )


def check_ids(path: Path, ids: Sequence[int]) -> NDArray[np.int64]:
    """Return the ids of a store; none at all, or one twice, is a `CapscopeError`."""
    if not len(ids):
        raise CapscopeError(f"{path}: there is no image to write features of")
    numbers = np.array(ids, np.int64)
    unique, counts = np.unique(numbers, return_counts=True)
    if len(unique) < len(ids):
        raise CapscopeError(f"{path}: image {unique[counts > 1][0]} comes twice")
    return numbers


def check_room(
    path: Path, ids: NDArray[np.int64], fields: Mapping[str, Field], there: int = 0
) -> None:
    """Refuse a store that its disk has no room for; `there` bytes of it are written already."""
    needed = len(ids) * sum(field.row_bytes for field in fields.values()) - there
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise CapscopeError(f"{path} needs {needed:,} bytes, {path.parent} has {free:,} left")


@contextmanager
def create_fields(
    path: Path,
    ids: Sequence[int],
    fields: Mapping[str, Field],
    attributes: Mapping[str, Any],
) -> Iterator[FieldWriter]:
    """Yield a writer; the file appears when the block ends, or not at all.

    Raises
    ------
    CapscopeError
        There is no room for the file; no image, or one twice; a value is not finite.
    """
    numbers = check_ids(path, ids)
    with atomic_path(path) as temporary:
        check_room(path, numbers, fields)
        writer = FieldWriter(temporary, numbers, fields, attributes)
        try:
            yield writer
        finally:
            writer.close()
        writer.verify(temporary)


def map_fields(path: Path) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]], dict[str, Any]]:
    """Return ids, the memory-mapped fields by name and the attributes of a features file."""
    places: dict[str, tuple[Any, Any, Any]] = {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            ids, attributes = file["ids"][()], json.loads(file.attrs["attributes"])
            for name in file:
                if name != "ids":
                    array = file[name]
                    places[name] = array.shape, array.dtype, array.id.get_offset()
    except (OSError, KeyError, RuntimeError, ValueError, AttributeError) as error:
        raise CapscopeError(f"{path} is not a feature store: {error}") from error
    for name, (shape, _, offset) in places.items():
        if not shape or shape[0] != len(ids) or offset is None:
            raise CapscopeError(f"{path} is not a feature store: {len(ids)} ids, {name} {shape}")
    mapped = {
        name: np.memmap(path, dtype, "r", offset, shape).view(np.ndarray)
        for name, (shape, dtype, offset) in places.items()
    }
    return ids, mapped, attributes
