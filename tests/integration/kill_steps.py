"""Kill the steps of the workflow, finish them, and print what came out as JSON.

python kill_steps.py FOLDER SEED RANDOM STRIDE

RANDOM times a step is killed by a random signal at a random moment; and each step is killed at
every STRIDEth of the moments at which it makes, renames or removes a file.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from steps import Workshop, running_in

from capscope.training.loop import Trainer

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 30.0
"""Seconds in which a killed step must be gone, with all that it started."""
TRAINED = Path("trained.log")
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def at_random(shop: Workshop, generator: random.Random, kills: int) -> Iterator[dict[str, Any]]:
    """Kill steps in turn; those that end before their signal comes are tried again."""
    names: list[str] = []
    while kills:
        names = names or generator.sample(list(shop.steps), len(shop.steps))
        name, how, whole = names.pop(), generator.choice(SIGNALS), generator.random() < 0.5
        shop.remove(name)
        TRAINED.unlink(missing_ok=True)
        child = shop.start(name, count_training_steps)
        time.sleep(generator.uniform(0.0, 0.8) * shop.seconds[name])
        leads = os.getpgid(child) == child  # it may not have come so far
        (os.killpg if whole and leads else os.kill)(child, how)
        if ended(child) == 0:
            continue
        kills -= 1
        yield {"step": name, "how": how.name, **aftermath(shop, name, child)}


def at_file_events(shop: Workshop, stride: int) -> Iterator[dict[str, Any]]:
    """Kill each step at every so manyth file that it touches, until it ends before that."""
    for start, name in enumerate(shop.steps):
        event = 1 + start % stride
        while True:
            shop.remove(name)
            TRAINED.unlink(missing_ok=True)
            child = shop.start(name, dying_at(event, Path(shop.steps[name].makes)))
            if ended(child) == 0:
                break
            yield {"step": name, "how": f"event {event}", **aftermath(shop, name, child)}
            event += stride


def aftermath(shop: Workshop, name: str, child: int) -> dict[str, Any]:
    """Finish a killed step; say what differs from an uninterrupted one, and what it cost."""
    end = time.monotonic() + PATIENCE
    while (orphans := running_in(child)) and time.monotonic() < end:
        time.sleep(0.01)
    reached = trained()
    TRAINED.unlink(missing_ok=True)
    made = shop.finish(name, count_training_steps)
    before = shop.whole[name]
    different = [path for path in before.keys() | made.keys() if before.get(path) != made.get(path)]
    again = trained()
    redone = 1 + reached[-1] - again[0] if reached and again else 0
    return {"different": sorted(different), "orphans": len(orphans), "redone": redone}


def ended(child: int) -> int:
    """Wait for a child; return its status."""
    return os.waitpid(child, 0)[1]


def count_training_steps() -> None:
    """Note each step of training when it begins."""
    original = Trainer._step

    def step(trainer: Trainer, batch: Any) -> Any:
        with TRAINED.open("a") as log:
            log.write(f"{trainer.progress.step}\n")
        return original(trainer, batch)

    Trainer._step = step  # type: ignore[method-assign]


def trained() -> list[int]:
    """Return the steps that were noted."""
    return [int(line) for line in TRAINED.read_text().split()] if TRAINED.exists() else []


def dying_at(event: int, product: Path) -> Callable[[], None]:
    """Return what makes a process kill itself at an event in or beside a product."""
    count = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if name not in EVENTS or (name == "open" and not arguments[2] & WRITES):
            return
        path = Path(os.path.relpath(str(arguments[0])))
        beside = path.name.startswith(f".{product.name}.")
        if (product in path.parents or beside) and "tensorboard" not in path.parts:
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    def prepare() -> None:
        count_training_steps()
        sys.addaudithook(hook)

    return prepare


if __name__ == "__main__":
    folder, seed, kills, stride = Path(sys.argv[1]), *map(int, sys.argv[2:])
    shop = Workshop(folder)
    shop.prepare()
    found = list(at_random(shop, random.Random(seed), kills))
    if stride:
        found += at_file_events(shop, stride)
    print(json.dumps(found))
