"""One writer at a time: locks that end with their owner, however that dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capscope.errors import CapscopeError
from capscope.lifeline import is_running

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BEAT = 5.0
"""Seconds between two signs of life of a holder."""
SILENCE = 30.0
"""Seconds without a sign of life after which a holder on another machine is dead."""
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def one_writer(product: Path) -> Iterator[None]:
    """Hold a product, a folder or a file, for this process alone; ``.<name>.lock`` is beside it.

    The lock is the operating system's (``flock``), so it ends with its holder. Some network file
    systems keep such locks to one machine, or have none. Therefore the file says who holds it, and
    the holder touches it every few seconds: one on another machine is believed dead only after a
    silence, one on this machine if its process is gone.

    Raises
    ------
    CapscopeError
        Another process holds the product.
    """
    product = product.resolve()
    path = product.with_name(f".{product.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = claim(path, wait=False)
    if handle is None:
        raise _held(product, _holder(path))
    try:
        before = _holder(path)
        if before is not None and _alive(before, path, handle):
            raise _held(product, before)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "boot_id": boot_id()}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
        over = threading.Event()
        beating = threading.Thread(target=_beat, args=(handle, over), daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def claim(path: Path, *, wait: bool) -> int | None:
    """Lock a file, made if it is not there; return its descriptor, or None if another has it.

    Whoever had it may have renamed or removed it, so it is looked at again once it is locked.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(handle, wait)
        except BlockingIOError:
            os.close(handle)
            return None
        if _is_at(handle, path):
            return handle
        os.close(handle)


def boot_id() -> str | None:
    """Return what tells this start of the machine from any other, where Linux says so."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else None


def _lock(handle: int, wait: bool) -> bool:
    """Lock an open file; return whether its file system knows locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _beat(handle: int, over: threading.Event) -> None:
    while not over.wait(BEAT):
        os.utime(handle)


def _holder(path: Path) -> dict[str, Any] | None:
    """Return who wrote into a lock last; nobody, if it was just made."""
    try:
        holder = json.loads(path.read_bytes())
        return {key: holder[key] for key in ("pid", "host", "boot_id")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(holder: dict[str, Any], path: Path, handle: int) -> bool:
    """Say whether the last writer of a lock that could be had is at work nevertheless."""
    if (holder["host"], holder["boot_id"]) == (socket.gethostname(), boot_id()):
        return not _lock(handle, wait=False) and is_running(holder["pid"])
    seen, end = path.stat().st_mtime_ns, time.monotonic() + SILENCE
    while time.monotonic() < end:
        time.sleep(min(BEAT, SILENCE) / 2)
        with path.open("rb") as stream:  # opened anew: network file systems look again then
            if os.fstat(stream.fileno()).st_mtime_ns != seen:
                return True
    return False


def _held(product: Path, holder: dict[str, Any] | None) -> CapscopeError:
    who = f"process {holder['pid']} on {holder['host']}" if holder else "a process just started"
    return CapscopeError(
        f"{product} is being written by another run ({who}). Wait for it, or stop it; a lock whose "
        "owner is gone is taken over by itself"
    )
