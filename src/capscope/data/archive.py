"""Unpacking zip archives from outside: nothing leaves the folder, and it can be taken up again."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from capscope.data.annotations import relative_path
from capscope.data.download import free_space
from capscope.errors import CapscopeError
from capscope.files import writing

MOST_EXPANDED = 100
"""Times its own size that an archive may grow to; photographs hardly grow, JSON about tenfold."""
_SMALL = 1 << 20  # archives below this many bytes may grow to a hundred times as much
_PART = ".part"


def unpack_zip(archive: Path, folder: Path, members: Sequence[str] | None = None) -> list[str]:
    """Unpack a zip archive, or some of its members; return their names.

    Each file appears whole. Files that are there with the size that the archive tells are left
    alone, so that an interrupted call goes on.

    Parameters
    ----------
    members : sequence of str, optional
        Names in the archive; all by default.

    Raises
    ------
    CapscopeError
        No archive, damaged, without one of `members`, too large for the disk; a member that leaves
        the folder, is a link or device, is encrypted or comes twice; sizes out of proportion.
        Files that were unpacked before the damage stay.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = _checked(content, archive, members)
            missing = [entry for entry in entries if not _there(entry, folder)]
            free_space(folder, sum(entry.file_size for entry in missing))
            named = f"unpacking {archive.name}"
            for entry in tqdm(missing, named, unit="file", delay=1):
                _unpack(content, entry, folder)
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise CapscopeError(f"{archive} is damaged, or no zip archive: {error}") from error
    os.sync()  # once for all files: a sync for each would take longer than the unpacking
    return [entry.filename for entry in entries]


def _checked(
    content: zipfile.ZipFile, archive: Path, members: Sequence[str] | None
) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in content.infolist() if not entry.is_dir()]
    seen: set[str] = set()
    for entry in entries:
        where = f"{archive}: member {entry.filename!r}"
        name = relative_path(entry.filename, f"{archive}: a member")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise CapscopeError(f"{where} is a link or a device")
        if entry.flag_bits & 1:
            raise CapscopeError(f"{where} is encrypted")
        if name in seen:
            raise CapscopeError(f"{where} comes twice")
        seen.add(name)
    if members is not None:
        lacking = [name for name in members if name not in seen]
        if lacking:
            raise CapscopeError(f"{archive} has no {', '.join(lacking)}")
        entries = [entry for entry in entries if entry.filename in members]
    total = sum(entry.file_size for entry in entries)
    size = archive.stat().st_size
    if total > MOST_EXPANDED * max(size, _SMALL):
        raise CapscopeError(f"{archive} ({size:,} bytes) would grow to {total:,}: not unpacked")
    return entries


def _there(entry: zipfile.ZipInfo, folder: Path) -> bool:
    path = folder / entry.filename
    return path.is_file() and path.stat().st_size == entry.file_size


def _unpack(content: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    path = folder / entry.filename
    part = path.with_name(f".{path.name}{_PART}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with content.open(entry) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
