"""Train a stage on tiny data, killing it at random moments; print what came out as JSON.

Run as a program of its own: it forks trainers from one process that has torch loaded.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

# What a training would load by itself, loaded once for all children.
import torch
import torch._dynamo
import torch.utils.tensorboard
from tiny_data import tiny_folders, tiny_params

import capscope.models.gridtd  # noqa: F401
from capscope.files import sha256_of
from capscope.training.run import train_run


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}


def main(folder: Path, kills: int, seed: int, stage: str) -> None:
    generator = random.Random(seed)
    torch.set_num_threads(1)  # as in all tests
    params = tiny_params(epochs=4, checkpoint_seconds=0.03)
    folders = tiny_folders(folder, params)

    def start(out: Path, stage: str = stage) -> int:
        child = os.fork()
        if child:
            return child
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        arguments = [folders["data"], folders["vocabulary"], folders["features"], params]
        before = None if stage == "xe" else folder / "xe"
        train_run(out, *arguments, system="gridtd", stage=stage, seed=1, from_dir=before)
        os._exit(0)

    def finish(out: Path, stage: str = stage) -> dict[str, str]:
        assert os.waitpid(start(out, stage), 0)[1] == 0
        assert not (out / "state").exists()
        return hashes(out)

    if stage != "xe":
        finish(folder / "xe", "xe")
    begun = time.monotonic()
    whole = finish(folder / "whole")
    duration = time.monotonic() - begun
    killed, resumable, outcomes = 0, 0, []
    while killed < kills:
        out = folder / "killed"
        child = start(out)
        time.sleep(generator.uniform(0.02, 0.6 * duration))
        os.kill(child, generator.choice([signal.SIGKILL, signal.SIGTERM]))
        if os.waitpid(child, 0)[1]:
            killed += 1
            resumable += (out / "state" / "state.safetensors").exists()
        else:
            outcomes.append(hashes(out))
            shutil.rmtree(out)
    outcomes.append(finish(folder / "killed"))
    print(json.dumps({"whole": whole, "outcomes": outcomes, "resumable": resumable}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
