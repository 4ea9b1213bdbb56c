"""The steps of the workflow on a handful of images, run in children of one process.

Torch and the rest are loaded once, so that hundreds of steps can be run, and killed.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

from capscope import cli
from capscope.files import read_json, sha256_of, write_json
from capscope.params import merge

# What the steps would load by themselves, loaded once for all children.
LOADED = (
    "capscope.benchmarks.run",
    "capscope.cli.benchmark",
    "capscope.data.captions",
    "capscope.data.scenes",
    "capscope.explain.split",
    "capscope.features.backbone",
    "capscope.features.extract",
    "capscope.metrics.tables",
    "capscope.report.site",
    "capscope.training.run",
    "torch._dynamo",
    "torch.utils.tensorboard",
)
SMALL: dict[str, Any] = {
    "dataset": {"scenes": {"size": 64, "train": 24, "val": 4, "test": 4, "shift": 4}},
    "features": {"grid": {"image_size": 64, "batch_size": 4}},
    "metrics": {"meteor": False, "tokenizer": "python", "cache": None},
    "decoding": {"beam": 1, "max_length": 8},
    "explanations": {"explainers": ["lrp", "gradcam"], "controls": [], "batch_size": 1},
    "benchmarks": {"measures": ["ground_truth", "deletion", "hallucination", "conservation"]},
    "systems": {
        "gridtd": {
            "stages": ["xe"],
            "xe": {
                "epochs": 3,
                "epoch_steps": 4,
                "batch_size": 8,
                "learning_rate": 0.05,  # so few steps must lead to words
                "checkpoint_seconds": 0.001,
            },
            "scst": {"epochs": 2, "checkpoint_seconds": 0.001},
            "lrp_xe": {"epochs": 2, "checkpoint_seconds": 0.001},
            "lrp_scst": {"epochs": 2, "checkpoint_seconds": 0.001},
        }
    },
}


@dataclass(frozen=True)
class Step:
    """A call of the command line and what it makes."""

    name: str
    arguments: tuple[str, ...]
    makes: str
    held: str
    """What it is the only writer of, such as a file in what it makes."""


def steps() -> list[Step]:
    """Return all steps, in the order of the work."""
    top = "results/smoke"
    data, features, vocabulary = (
        f"{top}/{name}" for name in ("data", "features/grid", "vocabulary/gridtd")
    )
    backbone, scores, report = (f"{top}/{name}" for name in ("backbone", "scores", "report"))
    run = f"{top}/runs/gridtd/xe/seed1"
    found: list[Step] = []

    def add(name: str, command: str, *arguments: str, makes: str, held: str = "") -> None:
        arguments = (command, "--params", "params.yaml", *arguments)
        found.append(Step(name, arguments, makes, held or makes))

    add("data", "data", "--workers", "1", "--out", data, makes=data)
    add("backbone", "backbone", "--data", data, "--out", backbone, makes=backbone)
    given = ["--data", data, "--backbone", backbone]
    add("features", "features", *given, "--out", features, makes=features)
    given = ["--system", "gridtd", "--data", data]
    add("vocabulary", "vocabulary", *given, "--out", vocabulary, makes=vocabulary)
    given += ["--features", features, "--vocabulary", vocabulary]
    add("xe", "train", *given, "--stage", "xe", "--out", run, makes=run)
    for stage in ("scst", "lrp_xe", "lrp_scst"):
        out = f"results/tuned/{stage}"
        add(stage, "train", *given, "--stage", stage, "--from", run, "--out", out, makes=out)
    given = ["--data", data, "--features", features, "--run", run]
    of_split = [*given, "--split", "test"]
    out, folder = f"{run}/decoded/test.json", f"{run}/decoded"
    add("decode", "decode", *of_split, "--out", out, makes=folder, held=out)
    out = f"{run}/relevance"
    add("explain", "relevance", *of_split, makes=out, held=f"{out}/test.json")
    measures, out = SMALL["benchmarks"]["measures"], f"{run}/benchmarks"
    first = f"{out}/{measures[0]}.csv"
    add("measure", "benchmark", *measures, *given, makes=out, held=first)
    add("evaluate", "evaluate", "--data", data, "--run", run, "--out", scores, makes=scores)
    add("report", "report", "--results", top, "--out", report, makes=report)
    return found


class Workshop:
    """A folder in which steps run in children of this process.

    Parameters
    ----------
    folder : Path
        With ``params.yaml``; becomes the current folder.
    """

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)  # as in all tests
        for name in LOADED:
            import_module(name)
        os.chdir(folder)
        params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
        Path("params.yaml").write_text(
            yaml.safe_dump(merge(params, SMALL), sort_keys=False), "utf-8"
        )
        self.steps = {step.name: step for step in steps()}
        self.seconds: dict[str, float] = {}
        self.whole: dict[str, dict[str, str]] = {}

    def prepare(self) -> None:
        """Run all steps to their end, unless that has been done."""
        done = Path("whole.json")
        if not done.exists():
            self.whole = {name: self.finish(name) for name in self.steps}
            write_json(done, [self.whole, self.seconds])
        self.whole, self.seconds = read_json(done)

    def start(self, name: str, prepare: Callable[[], None] = lambda: None) -> int:
        """Start a step in a session of its own; `prepare` is called there first."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            os.setsid()
            log = os.open("steps.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = ["capscope", *self.steps[name].arguments]
            prepare()
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def finish(self, name: str, prepare: Callable[[], None] = lambda: None) -> dict[str, str]:
        """Run a step to its end, and return what it made."""
        begun = time.monotonic()
        status = os.waitpid(self.start(name, prepare), 0)[1]
        if status:
            raise RuntimeError(f"{name}: status {status}\n{Path('steps.log').read_text()[-3000:]}")
        self.seconds[name] = time.monotonic() - begun
        return self.made(name)

    def files(self, name: str) -> list[Path]:
        """Return the files of a step's product, and what lies beside it unasked.

        Products of other steps may be inside. TensorBoard's files are named after the time, and a
        resumed training adds one.
        """
        product = Path(self.steps[name].makes)
        others = [Path(step.makes) for step in self.steps.values() if step.name != name]
        inside = {other for other in others if product in other.parents}
        inside.add(product / "tensorboard")
        files = [path for path in product.rglob("*") if path.is_file()]
        files += product.parent.glob(f".{product.name}.*")
        return sorted(path for path in files if not inside & set(path.parents))

    def made(self, name: str) -> dict[str, str]:
        """Return the hash of each file that a step made."""
        return {str(path): sha256_of(path) for path in self.files(name)}

    def remove(self, name: str) -> None:
        """Remove what a step made."""
        for path in self.files(name):
            path.unlink()


def running_in(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, *numbers = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if state != "Z" and int(numbers[2]) == session:
                found.append(int(entry.name))
    return found
