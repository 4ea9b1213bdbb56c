"""One trainer per folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capscope.errors import CapscopeError

LOCK = "lock.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone.

    The lock is the operating system's (``flock``) on ``lock.json``, so it ends with the process
    however that dies; the file says who holds it: host, process id and boot id.

    Raises
    ------
    CapscopeError
        Another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CapscopeError(
                f"{folder} is in use by another run ({_owner(handle)}). Wait for it, or stop it; "
                "a lock whose owner is gone is taken over by itself"
            ) from error
        holder = {"pid": os.getpid(), "boot_id": boot_id(), "host": socket.gethostname()}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(handle)


def boot_id() -> str | None:
    """Return what tells this start of the machine from any other, where Linux says so."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else None


def _owner(handle: int) -> str:
    """Describe the holder; the file may be empty for an instant."""
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError):
        return "just started"
