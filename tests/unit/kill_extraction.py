"""Extract tiny features in shards, killing it at random moments; print what came out as JSON.

Run as a program of its own: it forks extractors from one process that has torch loaded.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from extraction_data import extraction_data

from capscope.features import resume
from capscope.features.extract import prepare_features
from capscope.features.job import gather_features
from capscope.features.shards import shard_folder
from capscope.files import sha256_of
from capscope.shards import Shard

COUNT, BATCH, SHARDS = 150, 2, 3


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file() and ".shards.removed" not in path.parts  # joined, not all gone yet
    }


def complete(out: Path) -> dict[str, int]:
    """Return when each complete shard was written."""
    manifests = out.glob("shards/*/manifest.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in manifests}


def main(folder: Path, kills: int, seed: int) -> None:
    generator = random.Random(seed)
    params = extraction_data(folder, COUNT, BATCH)
    data, backbone = folder / "data", folder / "backbone"
    resume.JOURNAL_SECONDS = 0.01

    def start(out: Path, shards: int) -> int:
        child = os.fork()
        if child:
            return child
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        if shards == 1:
            prepare_features(out, data, params, backbone)
        elif not (out / "manifest.json").exists():
            for number in range(1, shards + 1):
                prepare_features(out, data, params, backbone, Shard(number, shards))
            gather_features(out, data, params, "grid", {"backbone": backbone}, shards)
        os._exit(0)

    begun = time.monotonic()
    assert os.waitpid(start(folder / "whole", 1), 0)[1] == 0
    duration = 1.5 * (time.monotonic() - begun)
    killed, resumed, redone, outcomes = 0, 0, 0, []
    shards, attempt = SHARDS, 0
    # Where a kill falls depends on the machine: go on until one has left a part to take up.
    while killed < kills or (not resumed and killed < 10 * kills):
        out = folder / f"killed{attempt}"
        before = complete(out)
        child = start(out, shards)
        time.sleep(generator.uniform(0.01, duration))
        os.kill(child, signal.SIGKILL)
        killed += bool(os.waitpid(child, 0)[1])
        after = complete(out)
        if after:
            redone += sum(after.get(name, when) != when for name, when in before.items())
        places = [out, *(shard_folder(out, Shard(n, shards)) for n in range(1, shards + 1))]
        resumed += any((place / ".features.h5.journal").exists() for place in places)
        if (out / "manifest.json").exists() and not (out / "shards").exists():
            outcomes.append(hashes(out))
            attempt, shards = attempt + 1, generator.choice([1, SHARDS])
    out = folder / f"killed{attempt}"
    assert os.waitpid(start(out, shards), 0)[1] == 0
    outcomes.append(hashes(out))
    whole = hashes(folder / "whole")
    print(json.dumps({"whole": whole, "outcomes": outcomes, "resumed": resumed, "redone": redone}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
