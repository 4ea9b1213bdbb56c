"""Large files from the network: resumed, checked, from the first mirror that has them."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from capscope import __version__
from capscope.errors import CapscopeError
from capscope.files import writing

TIMEOUT = 30.0
"""Seconds without a byte before a connection is given up."""
ATTEMPTS = 4
"""Connections in a row that may bring nothing before the next mirror is tried."""
_BLOCK = 1 << 20
_MARGIN = 64 << 20  # bytes that stay free on the disk


class _NoFileError(Exception):
    """This address does not give the file; the message says why."""


@dataclass(frozen=True)
class _Goal:
    path: Path
    checksum: str | None
    room: int
    timeout: float
    pause: float


def download(
    path: Path,
    addresses: Sequence[str],
    *,
    checksum: str | None = None,
    room: int = 0,
    timeout: float = TIMEOUT,
    pause: float = 1.0,
) -> Path:
    """Fetch a file, unless `path` is there already; whole and checked, or not at all.

    What arrives is kept in ``.<name>.part`` beside `path`. A dropped connection goes on where it
    broke off; with a checksum so does the next call, on any mirror.

    Parameters
    ----------
    path : Path
    addresses : sequence of str
        ``http`` or ``https``; tried in order.
    checksum : str, optional
        ``sha256:<hex>``, or another algorithm of `hashlib`.
    room : int
        Bytes that are needed on the disk besides the file, to unpack it.
    timeout : float
        Seconds without a byte before a connection is given up.
    pause : float
        Seconds before a second attempt; doubled each time.

    Raises
    ------
    CapscopeError
        No address gives the file (each with its reason, and where to put a copy), it has another
        checksum, the disk is too small, another process is downloading it.
    """
    goal = _Goal(path, checksum, room, timeout, pause)
    problems = []
    with _part(path) as stream:
        if path.is_file():
            return _checked(path, checksum)
        for address in addresses:
            if checksum is None:
                stream.truncate(0)  # bytes of another file, for all that is known
            try:
                _fetch(stream, address, goal)
            except _NoFileError as problem:
                problems.append(f"  {address}: {problem}")
                continue
            os.fsync(stream.fileno())
            Path(stream.name).replace(path)
            return path
    reasons = "\n".join(problems) or "  no address is given"
    raise CapscopeError(
        f"cannot download {path.name}:\n{reasons}\n"
        f"Without a network, fetch it elsewhere and put it at {path}"
    )


def free_space(folder: Path, needed: int) -> None:
    """Raise `CapscopeError` unless the disk of `folder` has `needed` bytes and a margin."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed + _MARGIN:
        raise CapscopeError(
            f"{folder} has {free / 1e9:.1f} GB free, {(needed + _MARGIN) / 1e9:.1f} GB are needed: "
            "free space or choose another folder"
        )


@contextmanager
def _part(path: Path) -> Iterator[BinaryIO]:
    """Open the unfinished file for this process alone; an empty one is removed at the end."""
    part = path.with_name(f".{path.name}.part")
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CapscopeError(f"another process is downloading {path}") from error
            try:
                yield stream
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()


def _checked(path: Path, checksum: str | None) -> Path:
    problem = _wrong_checksum(path, checksum)
    if problem:
        raise CapscopeError(f"{path} is not the file that is expected: {problem}; remove it")
    return path


def _fetch(stream: BinaryIO, address: str, goal: _Goal) -> None:
    """Bring the file to its end from one address, and check it."""
    if not address.startswith(("http://", "https://")):
        raise _NoFileError("not an http or https address")
    problem = ""
    for _ in range(2):
        in_one_go = not _size(stream)
        in_one_go &= _complete(stream, address, goal) == 1
        problem = _wrong_checksum(Path(stream.name), goal.checksum)
        if not problem:
            return
        stream.truncate(0)
        if in_one_go:
            break  # what was pieced together gets a second chance
    raise _NoFileError(problem)


def _complete(stream: BinaryIO, address: str, goal: _Goal) -> int:
    """Connect until everything is here; return how often."""
    connections = failures = 0
    while True:
        before = _size(stream)
        connections += 1
        try:
            if _transfer(stream, address, goal):
                return connections
            problem = "the connection broke off"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                raise _NoFileError(problem) from error
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(stream) > before else failures + 1
        if failures == ATTEMPTS:
            raise _NoFileError(f"{problem} ({ATTEMPTS} attempts)")
        time.sleep(goal.pause * 2**failures)


def _transfer(stream: BinaryIO, address: str, goal: _Goal) -> bool:
    """Append what one connection brings; return whether the file is complete."""
    have = _size(stream)
    headers = {"User-Agent": f"capscope/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=goal.timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what is here: the whole file, or too much of it
            total = _total(error.headers.get("Content-Range"))
            if total == have:
                return True
            stream.truncate(0)
            return False
        raise
    with response:
        if have and not _continues(response, have):
            stream.truncate(0)
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if total is not None:
            free_space(goal.path.parent, total - have + goal.room)
        return _copy(response, stream, have, total, goal.path.name)


def _continues(response: http.client.HTTPResponse, have: int) -> bool:
    """Return whether the answer goes on after `have` bytes (some servers start anew)."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return response.status == 206 and found is not None and int(found[1]) == have


def _total(content_range: str | None) -> int | None:
    found = re.match(r"bytes \*/(\d+)", content_range or "")
    return int(found[1]) if found else None


def _copy(
    source: http.client.HTTPResponse, stream: BinaryIO, have: int, total: int | None, name: str
) -> bool:
    with tqdm(
        total=total, initial=have, desc=name, unit="B", unit_scale=True, unit_divisor=1024, delay=1
    ) as progress:
        while block := source.read1(_BLOCK):
            with writing(Path(stream.name)):
                stream.write(block)
                stream.flush()
            have += len(block)
            progress.update(len(block))
    return total is None or have == total


def _size(stream: BinaryIO) -> int:
    return os.fstat(stream.fileno()).st_size


def _wrong_checksum(path: Path, checksum: str | None) -> str:
    """Say what is wrong with the checksum; nothing if nothing is."""
    if checksum is None:
        return ""
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as stream:
        try:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
        except ValueError as error:
            raise CapscopeError(f"checksum {checksum!r}: no such algorithm") from error
    return "" if found == expected.lower() else f"its {algorithm} is {found}, not {expected}"
