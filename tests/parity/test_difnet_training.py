"""The epochs of DIFNet's training as its program ran them, with scripted validation scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from difnet_captioners import FOLDER
from torch import nn

from capscope.tensors import read_tensors
from capscope.training.batches import Rows
from capscope.training.loop import Recipe, Trainer
from capscope.training.stages.stage import Outcome, Stage
from capscope.training.state import BEST_FILE, Progress

PATH = FOLDER / "train_trace.json"
TRACES = json.loads(PATH.read_text("utf-8")) if PATH.exists() else {}
XE = Recipe(
    epochs=21,
    epoch_steps=None,
    batch_size=50,
    learning_rate=1e-4,
    schedule="difnet",
    betas=(0.9, 0.98),
    clip_value=None,
    validation_images=1,
    validation_beam=5,
    patience=5,
    keep="best",
    checkpoint_seconds=1e9,
    ties="last",
)
SCST = replace(
    XE, epochs=100, learning_rate=5e-6, schedule="constant", betas=(0.9, 0.999), batch_size=10
)
"""The two stages as docs/captioners.md has the published training."""
PHASES = ("XE", "RL")


class OneWeight(Stage):
    """Two steps an epoch; its weight says how many steps have been made."""

    unit = "caption"

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[Rows]:
        return [np.arange(1), np.arange(1)]

    def step(self, batch: Rows) -> Outcome:
        self.captioner.steps += 1
        return Outcome(self.captioner.weight.sum(), 1, {}, 1)


class Counter(nn.Module):
    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", torch.zeros(1))


def trained(recipe: Recipe, model: Counter, scores: list[float], out: Path, **more: Any) -> Trainer:
    """Train until the stage ends; scores are used up one an epoch."""

    def validate(captioner: nn.Module) -> Mapping[str, float]:
        return {"cider": scores.pop(0)}

    stage = OneWeight(model, None, {})  # type: ignore[arg-type]
    trainer = Trainer(stage, validate, recipe, seed=1234, folder=out, key="", **more)  # type: ignore[arg-type]
    trainer.run()
    return trainer


def rates(progress: Progress) -> list[float]:
    return [row["value"] for row in progress.rows if row["metric"] == "learning_rate"]


@pytest.mark.skipif(not TRACES, reason=f"fixture {PATH} is not here (set CAPSCOPE_GOLDEN)")
@pytest.mark.parametrize("name", sorted(TRACES))
def test_both_stages_go_through_the_epochs_of_the_original(name: str, tmp_path: Path) -> None:
    trace = TRACES[name]
    epochs = {phase: [one for one in trace["epochs"] if one["phase"] == phase] for phase in PHASES}
    scores, model = list(trace["val_cider"]), Counter()
    first = trained(XE, model, scores, tmp_path / "xe")
    best = first.progress.best_epoch
    assert best is not None
    assert len(rates(first.progress)) == len(epochs["XE"])
    told = [line for line in trace["messages"] if line.startswith("Resuming from epoch")]
    assert len(told) == (best < first.progress.epoch)  # where the last is not the best one
    for line in told:
        assert line.startswith(f"Resuming from epoch {best - 1},")
        assert line.endswith(f"best cider {first.progress.best_score:f}")
    model.load_state_dict(read_tensors(tmp_path / "xe" / "state" / BEST_FILE.format(best)))
    assert model.steps == 2 * best
    scores.insert(0, first.progress.best_score)  # a stage validates what it starts from
    second = trained(SCST, model, scores, tmp_path / "scst", fine_tuning=True)
    for phase, trainer in zip(PHASES, (first, second), strict=True):
        expected = [one["lr"] for one in epochs[phase]]
        assert rates(trainer.progress) == pytest.approx(expected, rel=1e-12), phase
        assert {tuple(one["betas"]) for one in epochs[phase]} == {trainer.recipe.betas}
    done, progress = first.progress.epoch, second.progress
    patient = progress.waited < SCST.patience
    assert ("patience reached." in trace["messages"]) != patient
    assert (trace["ended"] == "stopped") != patient
    assert trace["last"] == {
        "epoch": done + progress.epoch - 1,
        "patience": progress.waited,
        "best_cider": progress.best_score,
        "use_rl": True,
    }
    assert progress.best_epoch is not None
    later = progress.best_epoch > 0
    assert trace["best"]["epoch"] == (done + progress.best_epoch if later else best) - 1
    assert trace["best"]["use_rl"] == later
    assert trace["best"]["best_cider"] == progress.best_score


def test_the_rate_of_self_critical_training_is_the_originals() -> None:
    path = FOLDER / "data_case.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    assert json.loads(path.read_text("utf-8"))["rl_lr"] == SCST.learning_rate
