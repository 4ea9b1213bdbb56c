"""The training loop: any stage, validation, and a state that survives being killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from capscope.errors import CapscopeError
from capscope.models.captioner import Captioner
from capscope.training.batches import Rows
from capscope.training.computation import PLAIN, Computation, Measured
from capscope.training.optimisers import build_optimiser
from capscope.training.schedules import Schedule
from capscope.training.stages.stage import Stage
from capscope.training.state import Progress, discard_older, load_state, save_best, save_state

SHOWN = (("train", "loss"), ("train", "reward"), ("val", "cider"))
"""Splits and measures that the progress bar shows."""
Validate = Callable[[Captioner], Mapping[str, float]]
"""Scores a captioner on validation images; ``cider`` decides which epoch is best."""


@dataclass(frozen=True)
class Recipe:
    """What the parameters of all stages have in common; the rest is the stage's own.

    An epoch ends with a validation. It is a pass over the training data, or ``epoch_steps`` steps.
    Each ``log_every``-th step is noted in the history. Of epochs with the same score the ``first``
    is the best, or the ``last`` (``ties``). What has a default here may be left out of the
    parameters.
    """

    epochs: int
    epoch_steps: int | None
    batch_size: int
    learning_rate: float
    schedule: str
    betas: tuple[float, float]
    clip_value: float | None
    validation_images: int
    validation_beam: int
    patience: int
    keep: str
    checkpoint_seconds: float
    optimiser: str = "adam"
    weight_decay: float = 0.0
    decayed: str = "weights"
    decay: float = 1.0
    decay_every: int = 1
    warm_up: int = 1
    epsilon: float = 1e-8
    clip_norm: float | None = None
    limit: int | None = None
    log_every: int = 15
    ties: str = "first"

    @classmethod
    def split(cls, section: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
        """Split a stage's section of the parameters into the recipe and what is the stage's."""
        names = {entry.name for entry in fields(cls)}
        own = {key: value for key, value in section.items() if key not in names | {"from"}}
        return cls(**{name: section[name] for name in names & set(section)}), own


class Trainer:
    """Trains a captioner by a stage; goes on by itself from ``state/`` of its folder.

    Parameters
    ----------
    stage : Stage
    validate : Validate
    recipe : Recipe
    seed : int
    folder : Path
        Holds the state, the best weights so far and TensorBoard's events.
    key : str
        Hash of everything that the result depends on.
    fine_tuning : bool
        The captioner is trained already: it is validated before the first step, as epoch 0, and
        stays the best if no epoch is better.
    computation : Computation
    """

    def __init__(
        self,
        stage: Stage,
        validate: Validate,
        recipe: Recipe,
        *,
        seed: int,
        folder: Path,
        key: str,
        fine_tuning: bool = False,
        computation: Computation = PLAIN,
    ) -> None:
        self.stage, self.captioner, self.validate = stage, stage.captioner, validate
        self.recipe, self.seed, self.folder = recipe, seed, folder
        self.fine_tuning, self.computation = fine_tuning, computation
        self.team = computation.team
        self.trained = [one for one in self.captioner.parameters() if one.requires_grad]
        self.optimiser = build_optimiser(self.captioner, recipe)
        steps = recipe.epochs * len(self._batches(0))
        schedule = Schedule(
            recipe.schedule,
            recipe.learning_rate,
            steps,
            recipe.epochs,
            recipe.decay,
            every=recipe.decay_every,
            warm_up=recipe.warm_up,
        )
        started = Progress(key, schedule)
        self.state_folder = folder / "state"
        found = load_state(self.state_folder, self.captioner, self.optimiser, key)
        self.progress = found or started
        self._saved = time.monotonic()

    def run(self) -> Progress:
        """Train to the last epoch, or until the score has not risen for `patience` epochs."""
        progress, batches = self.progress, self._batches(self.progress.epoch)
        an_epoch = sum(map(len, batches))
        done = progress.epoch * an_epoch + sum(map(len, batches[: progress.batch]))
        with (
            self._board() as board,
            tqdm(
                total=self.recipe.epochs * an_epoch,
                initial=done,
                unit=self.stage.unit,
                mininterval=1.0,
                disable=not self.team.leads,
            ) as bar,
        ):
            if self.fine_tuning and progress.best_epoch is None:
                self._log(self._judge({}), board, bar)
            while not self.finished():
                bar.set_description(f"epoch {progress.epoch + 1}/{self.recipe.epochs}")
                self._epoch(board, bar)
                self._log(self._close_epoch(), board, bar)
        return progress

    def _board(self) -> Any:
        """Open TensorBoard's events, of the leader; the others have None."""
        from torch.utils.tensorboard import SummaryWriter

        if not self.team.leads:
            return nullcontext()
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.progress.step)

    def finished(self) -> bool:
        """Say whether there is nothing left to train."""
        enough = self.progress.waited >= self.recipe.patience
        return enough or self.progress.epoch >= self.recipe.epochs

    def _batches(self, epoch: int) -> list[Rows]:
        """Return the batches of an epoch; those of short epochs follow each other in a pass."""
        steps = self.recipe.epoch_steps
        if steps is None:
            return self._pass(epoch)
        found: list[Rows] = []
        number, skipped = divmod(epoch * steps, len(self._pass(0)))
        while len(found) < steps:
            found += self._pass(number)[skipped:]
            number, skipped = number + 1, 0
        return found[:steps]

    def _pass(self, number: int) -> list[Rows]:
        return self.stage.batches(self.recipe.batch_size, seed=self.seed, epoch=number)

    def _log(self, rows: list[dict[str, Any]], board: Any, bar: tqdm[Any]) -> None:
        """Show the lines of an epoch."""
        for row in rows if board else ():
            board.add_scalar(f"{row['split']}/{row['metric']}", row["value"], row["step"])
        shown = {(row["split"], row["metric"]): f"{row['value']:.3f}" for row in rows}
        bar.set_postfix({key[1]: shown[key] for key in SHOWN if key in shown})

    def _epoch(self, board: Any, bar: tqdm[Any]) -> None:
        """Train on what is left of the present epoch."""
        self.stage.begin(self.progress.epoch)
        self.captioner.train()
        for batch in self._batches(self.progress.epoch)[self.progress.batch :]:
            measured = self._step(batch)
            if self.progress.step % self.recipe.log_every == 0:
                self._note(measured, board)
            bar.update(len(batch))
            if time.monotonic() - self._saved >= self.recipe.checkpoint_seconds:
                self._save()

    def _note(self, measured: Mapping[str, float], board: Any) -> None:
        """Keep what a single step measured."""
        place = {"epoch": self.progress.epoch + 1, "step": self.progress.step}
        for metric, value in measured.items():
            self.progress.history.append({**place, "metric": metric, "value": value})
            if board:
                board.add_scalar(f"step/{metric}", value, self.progress.step)

    def _step(self, batch: Rows) -> dict[str, float]:
        """Train on a batch; return its measures."""
        progress, recipe = self.progress, self.recipe
        rank = self.team.rank
        place = [self.seed, progress.step, *([rank] if rank else [])]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        rate = progress.schedule.at(progress.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        measured = self._gradients(batch)
        if recipe.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.captioner.parameters(), recipe.clip_value)
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.captioner.parameters(), recipe.clip_norm)
        self.optimiser.step()
        for name, value in measured.values.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value * measured.weight
        progress.weight += measured.weight
        progress.batch += 1
        progress.step += 1
        return {"learning_rate": rate, **measured.values}

    def _gradients(self, batch: Rows) -> Measured:
        """Compute the gradients of a batch; a loss that is not finite is an error."""
        progress, recipe = self.progress, self.recipe
        measured = self.computation.gradients(self.stage, batch, self.trained)
        value = measured.values["loss"]
        if not math.isfinite(value):
            raise CapscopeError(
                f"training diverged: the loss is {value} in epoch {progress.epoch + 1}, step "
                f"{progress.step + 1}. Lower learning_rate ({recipe.learning_rate}) or clip_value "
                f"({recipe.clip_value}), or check the features for NaN; then delete "
                f"{self.state_folder}"
            )
        return measured

    def _close_epoch(self) -> list[dict[str, Any]]:
        """End an epoch: validate, and return its lines of the log."""
        progress = self.progress
        rate = progress.schedule.at(progress.step - 1)
        means = {name: value / progress.weight for name, value in progress.sums.items()}
        progress.epoch += 1
        progress.batch, progress.sums, progress.weight = 0, {}, 0
        return self._judge({"learning_rate": rate, **means})

    def _judge(self, measured: Mapping[str, float]) -> list[dict[str, Any]]:
        """Validate, remember the best weights, and save the state."""
        progress = self.progress
        scores = self.team.agree(self.validate(self.captioner) if self.team.leads else {})
        place = {"epoch": progress.epoch, "step": progress.step}
        rows = [
            {**place, "split": split, "metric": metric, "value": value}
            for split, values in (("train", measured), ("val", scores))
            for metric, value in values.items()
        ]
        progress.rows += rows
        progress.last_score = scores["cider"]
        progress.schedule.observe(scores["cider"])
        progress.waited += 1
        if self._is_best(scores["cider"]):
            progress.best_score, progress.best_epoch = scores["cider"], progress.epoch
            progress.waited = 0
            if self.team.leads:
                save_best(self.state_folder, self.captioner, progress.epoch)
        self._save()
        if self.team.leads:
            discard_older(self.state_folder, progress.best_epoch or 0)
        return rows

    def _is_best(self, score: float) -> bool:
        best = self.progress.best_score
        return best is None or score > best or (self.recipe.ties == "last" and score == best)

    def _save(self) -> None:
        if self.team.leads:
            save_state(self.state_folder, self.captioner, self.optimiser, self.progress)
        self._saved = time.monotonic()
