"""Kill the steps of the workflow, finish them, and print what came out as JSON.

python kill_steps.py FOLDER SEED ROUNDS STRIDE

In each of ROUNDS every step is killed at a random moment, by each signal in turn; and each step is
killed at every STRIDEth of the moments at which it makes, renames or removes a file.
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
TRIES = 50
"""How often a step may end before its signal comes."""
TRAINED = Path("trained.log")
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def at_random(shop: Workshop, generator: random.Random, rounds: int) -> Iterator[dict[str, Any]]:
    """Kill every step in each round; one that ends before its signal comes is tried again."""
    for turn in range(rounds):
        for place, name in enumerate(shop.steps):
            how = SIGNALS[(turn + place) % len(SIGNALS)]
            for _ in range(TRIES):
                child = at_work(shop, name, count_training_steps)
                if killed(child, how, shop.seconds[name], generator):
                    break
            else:
                raise RuntimeError(f"{how.name} does not kill {name}")
            yield {"step": name, "how": how.name, **aftermath(shop, name, child)}


def at_work(shop: Workshop, name: str, prepare: Callable[[], None]) -> int:
    """Start a step anew; return its process."""
    shop.remove(name)
    TRAINED.unlink(missing_ok=True)
    return shop.start(name, prepare)


def killed(child: int, how: signal.Signals, seconds: float, generator: random.Random) -> bool:
    """Kill a step, or its whole group, within `seconds`; say whether that was before its end."""
    whole = generator.random() < 0.5
    time.sleep(generator.uniform(0.0, 0.9) * seconds)
    leads = os.getpgid(child) == child  # it may not have come so far
    (os.killpg if whole and leads else os.kill)(child, how)
    return ended(child) != 0


def at_file_events(shop: Workshop, stride: int) -> Iterator[dict[str, Any]]:
    """Kill each step at every so manyth file that it touches, until it ends before that."""
    for start, name in enumerate(shop.steps):
        event = 1 + start % stride
        while True:
            child = at_work(shop, name, at_event(event, Path(shop.steps[name].makes), die))
            if ended(child) == 0:
                break
            yield {"step": name, "how": "SIGKILL", "event": event, **aftermath(shop, name, child)}
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


def at_event(
    event: int, product: Path, happens: Callable[[], None], events: set[str] = EVENTS
) -> Callable[[], None]:
    """Return what makes something happen to a process from an event in or beside a product on."""
    count = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if name not in events or (name == "open" and not arguments[2] & WRITES):
            return
        path = Path(os.path.relpath(str(arguments[0])))
        beside = path.name.startswith(f".{product.name}.")
        if (product in path.parents or beside) and "tensorboard" not in path.parts:
            count += 1
            if count >= event:
                happens()

    def prepare() -> None:
        count_training_steps()
        sys.addaudithook(hook)

    return prepare


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, seed, rounds, stride = Path(sys.argv[1]), *map(int, sys.argv[2:])
    shop = Workshop(folder)
    shop.prepare()
    found = list(at_random(shop, random.Random(seed), rounds))
    if stride:
        found += at_file_events(shop, stride)
    print(json.dumps(found))
