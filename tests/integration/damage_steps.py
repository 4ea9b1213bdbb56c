"""Damage the products of the workflow, one file at a time, and print who found it, as JSON.

python damage_steps.py FOLDER SEED MANNERS

Each file is damaged in MANNERS of the ways below, in turn. The next step that reads it must stop
with an error of its own, and `capscope verify` must name the product.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from steps import Workshop

from capscope.records import Records

READERS = {
    **{"data": "vocabulary", "backbone": "features", "features": "xe", "vocabulary": "xe"},
    **{"xe": "decode", "decode": "explain", "explain": "measure", "measure": "report"},
    **{"evaluate": "report"},
}
"""The step that reads what a step made; the others are read by nobody but `capscope verify`."""
SECONDS = 60.0
"""Time that a reader may take to find out."""
RESULTS = Path("results")


def flipped(content: bytes, generator: random.Random) -> bytes:
    """Return the content with one bit changed."""
    place = generator.randrange(len(content))
    bit = 1 << generator.randrange(8)
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


MANNERS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": flipped,
    "truncate": lambda content, generator: content[: generator.randrange(len(content))],
    "zero": lambda content, _: bytes(len(content)),
    "empty": lambda content, _: b"",
    "lengthen": lambda content, _: content + b"\0",
}


def damage(shop: Workshop, generator: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Damage every file that is part of a product; of many pictures, the first and the last."""
    turn = 0
    for name in shop.steps:
        files = [Path(file) for file in shop.whole[name]]
        pictures = [path for path in files if path.suffix == ".png"]
        for path in [path for path in files if path not in pictures[1:-1]]:
            content = path.read_bytes()
            for _ in range(count):
                manner = list(MANNERS)[turn % len(MANNERS)]
                turn += 1
                path.write_bytes(MANNERS[manner](content, generator))
                problems = [str(problem.path) for problem in Records(RESULTS).problems()]
                status = read_by(shop, READERS.get(name))
                path.write_bytes(content)
                found = {"step": name, "file": str(path), "manner": manner, "problems": problems}
                yield {**found, "reader": READERS.get(name), "status": status}


def read_by(shop: Workshop, reader: str | None) -> int | None:
    """Return the status of a step that reads a damaged file; -1 if it takes too long."""
    if reader is None:
        return None
    child, end = shop.start(reader), time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


if __name__ == "__main__":
    folder, seed, manners = Path(sys.argv[1]), *map(int, sys.argv[2:])
    shop = Workshop(folder)
    shop.prepare()
    found = list(damage(shop, random.Random(seed), manners))
    assert shop.whole == {name: shop.made(name) for name in shop.steps}, "readers changed results"
    print(json.dumps(found))
