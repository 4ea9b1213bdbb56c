"""However a training computes (in parts, by several processes, in bfloat16), it trains the same."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_folders, tiny_params

from capscope.data.captions import open_captions
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import sha256_of, write_json
from capscope.models import build
from capscope.params import merge
from capscope.training.computation import Computation, Measured
from capscope.training.stages import build_stage
from capscope.training.stages.stage import Corpus, Stage
from capscope.training.team import ALONE, Team

ROWS = np.arange(24)


@pytest.fixture(scope="module")
def params() -> Any:
    return tiny_params(checkpoint_seconds=0.01)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, params):
    return tiny_folders(tmp_path_factory.mktemp("tiny"), params)


@pytest.fixture
def stage_of(folders, params):
    """Build a stage whose captions are no matter of chance, with the same weights each time."""

    def make(name: str, **settings: Any) -> Stage:
        vocabulary, captions = open_captions(folders["vocabulary"])
        store = FeatureStore.open(folders["features"])
        torch.manual_seed(0)
        sizes = {"vocabulary_size": len(vocabulary), "feature_size": store.dim}
        model = build("gridtd", **sizes, embedding=12, hidden=16, attention=10, dropout=0.0)
        corpus = Corpus(captions, ROWS, vocabulary, store)
        own = {**params["systems"]["gridtd"][name], **settings}
        if name.endswith("scst"):
            own |= {"draw": "beam", "baseline": "mean", "samples": 3, **settings}
        return build_stage(name, model.train(), corpus, own)

    return make


def computed(stage: Stage, computation: Computation) -> tuple[Measured, list[torch.Tensor]]:
    torch.manual_seed(1)
    trained = list(stage.captioner.parameters())
    measured = computation.gradients(stage, ROWS[: 8 if stage.unit == "image" else 24], trained)
    return measured, [one.grad for one in trained if one.grad is not None]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("xe", {}),
        ("xe", {"per": "caption", "label_smoothing": 0.1}),
        ("scst", {}),
        ("scst", {"per": "position"}),
        ("lrp_xe", {}),
    ],
)
def test_a_batch_in_parts_has_the_gradients_of_the_whole(stage_of, name, settings):
    whole, expected = computed(stage_of(name, **settings), Computation())
    parts, found = computed(stage_of(name, **settings), Computation(accumulate=5))
    assert parts.weight == whole.weight
    assert parts.values == pytest.approx(whole.values, rel=1e-5, abs=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_references_of_an_image_stay_in_one_part(stage_of):
    stage = stage_of("xe", captions_per_image=3)
    stage.captioner.folds = True
    assert [len(part) for part in stage.parts(ROWS[:12], 3)] == [6, 3, 3]


def test_frequencies_of_a_batch_are_those_of_all_of_it(stage_of):
    stage = stage_of("scst", frequencies="batch")
    with pytest.raises(CapscopeError, match="frequencies: batch"):
        computed(stage, Computation(accumulate=2))


@pytest.mark.parametrize("name", ["xe", "scst", "lrp_xe"])
def test_bfloat16_gives_every_weight_nearly_the_same_gradient(stage_of, name):
    settings = {"draw": "samples"} if name == "scst" else {}
    whole, expected = computed(stage_of(name, **settings), Computation())
    measured, found = computed(stage_of(name, **settings), Computation(precision="bfloat16"))
    assert all(gradient.dtype == torch.float32 for gradient in found)
    assert len(found) == len(expected)
    if name == "scst":  # the draws differ: no gradient may be lost for having been drawn
        assert all(bool(gradient.any()) for gradient in found)
        return
    assert measured.values["loss"] == pytest.approx(whole.values["loss"], rel=0.005)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm()) <= 0.1 * float(other.norm()) + 1e-4


@pytest.mark.long  # the compiler takes a minute
def test_compiled_teacher_forcing_trains_the_same(stage_of):
    whole, expected = computed(stage_of("xe"), Computation())
    stage, computation = stage_of("xe"), Computation(compile=True)
    computation.prepare(stage.captioner)
    assert set(stage.captioner.state_dict()) == set(stage_of("xe").captioner.state_dict())
    measured, found = computed(stage, computation)
    assert measured.values == pytest.approx(whole.values, rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_processes_must_be_those_of_the_parameters(params):
    section = {**params["training"], "processes": 2}
    with pytest.raises(CapscopeError, match=r"training\.processes is 2, but 1 train"):
        Computation.of(section, ALONE)
    assert Computation.of(section, Team(0, 2)).team.size == 2


class Program:
    """``capscope train`` of the tiny data, by itself or under torchrun."""

    def __init__(self, folder: Path, folders: dict[str, Path], params: Any) -> None:
        self.folder, self.folders, self.params = folder, folders, params

    def start(self, name: str, processes: int) -> subprocess.Popen[bytes]:
        file = self.folder / f"{processes}.json"
        write_json(file, merge(self.params, {"training": {"processes": processes}}))
        command = [str(Path(sys.executable).parent / "capscope"), "train", "--params", str(file)]
        if processes > 1:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command = [*torchrun, f"--nproc-per-node={processes}", "--no-python", *command]
        command += ["--system", "gridtd", "--out", str(self.folder / name)]
        for key, path in self.folders.items():
            command += [f"--{key}", str(path)]
        log = (self.folder / "log").open("wb")
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def run(self, name: str, processes: int) -> Path:
        assert self.start(name, processes).wait(120) == 0, (self.folder / "log").read_text()
        return self.folder / name


def curve(run: Path) -> dict[tuple[str, ...], float]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = ("epoch", "step", "split", "metric")
    return {tuple(row[key] for key in keys): float(row["value"]) for row in rows}


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_go_on_together(tmp_path, folders, params):
    own = {"model": {"dropout": 0.0}, "xe": {"epochs": 6, "batch_size": 7}}
    program = Program(tmp_path, folders, merge(params, {"systems": {"gridtd": own}}))
    one, two = program.run("one", 1), program.run("two", 2)
    assert curve(two) == pytest.approx(curve(one), abs=1e-5)

    started = program.start("killed", 2)
    state = tmp_path / "killed" / "state" / "state.safetensors"
    while not state.exists() and started.poll() is None:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    deadline = time.monotonic() + 20
    while _members(started.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _members(started.pid) == [], "a process outlives the torchrun that started it"
    assert state.exists()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    again = program.run("killed", 2)
    for name in ("model.safetensors", "metrics.csv", "model.json"):
        assert sha256_of(again / name) == sha256_of(two / name)


def _members(group: int) -> list[int]:
    """Return the living processes of a session that `Program.start` began."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] not in "ZX":
                found.append(int(path.name))
    return found
