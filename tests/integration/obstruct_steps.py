"""Keep from the steps of the workflow what they need, finish them, and print what came out as JSON.

python obstruct_steps.py FOLDER EACH

Each step meets EACH of the obstacles below, in turn. It must end with one message and status 2, and
go on from what it had when there is none any more.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kill_steps import aftermath, at_event, at_work, ended
from steps import Workshop

from capscope.lock import one_writer

MAKING = {"open", "os.mkdir"}
"""What needs room on a disk."""
HELD: list[Any] = []
ROOM = 12 << 20
"""Bytes of memory that a step may take beside what it has when it begins."""


def refused(code: int) -> Callable[[], None]:
    """Return what fails with an error of the operating system."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail


def read_only(shop: Workshop, name: str) -> Callable[[], None]:
    """Let the step change nothing in its folder."""
    return at_event(1, Path(shop.steps[name].makes), refused(errno.EROFS))


def full(event: int) -> Callable[[Workshop, str], Callable[[], None]]:
    """Let the disk be full from an event in the folder of the step on."""

    def obstacle(shop: Workshop, name: str) -> Callable[[], None]:
        return at_event(event, Path(shop.steps[name].makes), refused(errno.ENOSPC), MAKING)

    return obstacle


def quota(shop: Workshop, name: str) -> Callable[[], None]:
    """Let no file grow beyond half of the largest that the step makes."""
    largest = max(Path(file).stat().st_size for file in shop.whole[name])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    return limit


def little_memory(shop: Workshop, name: str) -> Callable[[], None]:
    """Give the step hardly any memory."""

    def limit() -> None:
        status = Path("/proc/self/status").read_text().splitlines()
        has = 1024 * int(next(line for line in status if line.startswith("VmData")).split()[1])
        resource.setrlimit(resource.RLIMIT_DATA, (has + ROOM, has + ROOM))

    return limit


def another_writer(shop: Workshop, name: str) -> Callable[[], None]:
    """Have what the step writes held by somebody, who is gone with the step and lets nothing go."""

    def hold() -> None:
        HELD.append(one_writer(Path(shop.steps[name].held)))
        HELD[0].__enter__()

    return hold


OBSTACLES: dict[str, Callable[[Workshop, str], Callable[[], None]]] = {
    "read-only folder": read_only,
    "disk full at first": full(1),
    "file too large": quota,
    "disk full later": full(4),
    "disk full at the end": full(12),
    "little memory": little_memory,
    "another writer": another_writer,
}


def meet(shop: Workshop, count: int) -> Iterator[dict[str, Any]]:
    """Let steps meet obstacles; where a step has none in its way, it is left out."""
    turn = 0
    for name in shop.steps:
        for _ in range(count):
            obstacle = list(OBSTACLES)[turn % len(OBSTACLES)]
            turn += 1
            outcome = one(shop, name, obstacle)
            if outcome["status"]:
                yield outcome


def one(shop: Workshop, name: str, obstacle: str) -> dict[str, Any]:
    """Let a step meet an obstacle, and finish it."""
    lack = OBSTACLES[obstacle](shop, name)
    reading, writing = os.pipe()  # a log would be a file, and meet a limit of files

    def prepare() -> None:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        lack()

    child = at_work(shop, name, prepare)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    status = os.waitstatus_to_exitcode(ended(child))
    parts = [str(path) for path in Path("results").rglob(".*.part")]
    found = {"step": name, "how": obstacle, "status": status, "parts": parts}
    message = [line for line in said.splitlines() if line.startswith("capscope: error: ")]
    return {**found, "message": message, **aftermath(shop, name, child)}


if __name__ == "__main__":
    folder, each = Path(sys.argv[1]), int(sys.argv[2])
    shop = Workshop(folder)
    shop.prepare()
    print(json.dumps(list(meet(shop, each))))
