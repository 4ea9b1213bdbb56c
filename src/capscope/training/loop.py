"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.models.captioner import Captioner
from capscope.training.batches import Rows, epoch_batches, frame, image_of_row
from capscope.training.objectives import cross_entropy
from capscope.training.schedules import Schedule
from capscope.training.state import Progress, discard_older, load_state, save_best, save_state

Validate = Callable[[Captioner], Mapping[str, float]]
"""Scores a captioner on validation images; ``cider`` decides which epoch is best."""


@dataclass(frozen=True)
class Recipe:
    """The ``xe`` section of a system's parameters."""

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    betas: tuple[float, float]
    clip_value: float
    scheduled_sampling: float
    validation_images: int
    validation_beam: int
    patience: int
    checkpoint_seconds: float


@dataclass(frozen=True)
class Corpus:
    """What is learnt from: references `rows` of `captions`, and the features of their images."""

    captions: EncodedCaptions
    rows: Rows
    vocabulary: Vocabulary
    store: FeatureStore


class Trainer:
    """Trains a captioner with cross-entropy; goes on by itself from ``state/`` of its folder.

    Parameters
    ----------
    captioner : Captioner
    corpus : Corpus
    validate : Validate
    recipe : Recipe
    seed : int
    folder : Path
        Holds the state, the best weights so far and TensorBoard's events.
    key : str
        Hash of everything that the result depends on.
    """

    def __init__(
        self,
        captioner: Captioner,
        corpus: Corpus,
        validate: Validate,
        recipe: Recipe,
        *,
        seed: int,
        folder: Path,
        key: str,
    ) -> None:
        self.captioner, self.corpus, self.validate = captioner, corpus, validate
        self.recipe, self.seed, self.folder = recipe, seed, folder
        first, second = recipe.betas
        self.optimiser = torch.optim.Adam(
            captioner.parameters(), recipe.learning_rate, betas=(first, second), fused=True
        )
        steps = recipe.epochs * len(self._batches(0))
        started = Progress(key, Schedule(recipe.schedule, recipe.learning_rate, steps))
        self.state_folder = folder / "state"
        found = load_state(self.state_folder, captioner, self.optimiser, key)
        self.progress = found or started
        self._saved = time.monotonic()
        self._images = image_of_row(corpus.captions)

    def run(self) -> Progress:
        """Train to the last epoch, or until the score has not risen for `patience` epochs."""
        from torch.utils.tensorboard import SummaryWriter

        progress, rows = self.progress, len(self.corpus.rows)
        done = progress.epoch * rows + sum(
            map(len, self._batches(progress.epoch)[: progress.batch])
        )
        with (
            SummaryWriter(str(self.folder / "tensorboard"), purge_step=progress.step) as board,
            tqdm(
                total=self.recipe.epochs * rows, initial=done, unit="caption", mininterval=1.0
            ) as bar,
        ):
            while not self.finished():
                bar.set_description(f"epoch {progress.epoch + 1}/{self.recipe.epochs}")
                self._epoch(bar)
                for row in self._close_epoch():
                    board.add_scalar(f"{row['split']}/{row['metric']}", row["value"], row["step"])
                shown = {row["metric"]: f"{row['value']:.3f}" for row in progress.rows[-3:]}
                bar.set_postfix({name: shown[name] for name in ("loss", "cider")})
        return progress

    def finished(self) -> bool:
        """Say whether there is nothing left to train."""
        enough = self.progress.waited >= self.recipe.patience
        return enough or self.progress.epoch >= self.recipe.epochs

    def _batches(self, epoch: int) -> list[Rows]:
        lengths = self.corpus.captions.lengths[self.corpus.rows]
        places = epoch_batches(lengths, self.recipe.batch_size, seed=self.seed, epoch=epoch)
        return [self.corpus.rows[place] for place in places]

    def _epoch(self, bar: tqdm[Any]) -> None:
        """Train on what is left of the present epoch."""
        self.captioner.train()
        for rows in self._batches(self.progress.epoch)[self.progress.batch :]:
            self._step(rows)
            bar.update(len(rows))
            if time.monotonic() - self._saved >= self.recipe.checkpoint_seconds:
                self._save()

    def _step(self, rows: Rows) -> None:
        progress, recipe = self.progress, self.recipe
        batch = frame(self.corpus.captions, rows, self.corpus.vocabulary)
        features = self.corpus.store.read(self._images[rows])
        torch.manual_seed(
            int(np.random.SeedSequence([self.seed, progress.step]).generate_state(1)[0])
        )
        own_words = torch.rand(len(rows)) < recipe.scheduled_sampling
        rate = progress.schedule.at(progress.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = cross_entropy(self.captioner, features, batch, own_words)
        value = loss.item()
        if not math.isfinite(value):
            raise CapscopeError(
                f"training diverged: the loss is {value} in epoch {progress.epoch + 1}, step "
                f"{progress.step + 1}. Lower learning_rate ({recipe.learning_rate}) or clip_value "
                f"({recipe.clip_value}), or check the features for NaN; then delete "
                f"{self.state_folder}"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_value_(self.captioner.parameters(), recipe.clip_value)
        self.optimiser.step()
        words = int(batch.valid.sum())
        progress.loss += value * words
        progress.words += words
        progress.batch += 1
        progress.step += 1

    def _close_epoch(self) -> list[dict[str, Any]]:
        """Validate, remember the best weights, and return the epoch's lines of the log."""
        progress = self.progress
        rate = progress.schedule.at(progress.step - 1)
        scores = self.validate(self.captioner)
        progress.epoch += 1
        measured = [
            ("train", "learning_rate", rate),
            ("train", "loss", progress.loss / progress.words),
            *(("val", metric, value) for metric, value in scores.items()),
        ]
        place = {"epoch": progress.epoch, "step": progress.step}
        rows = [
            {**place, "split": split, "metric": metric, "value": value}
            for split, metric, value in measured
        ]
        progress.rows += rows
        progress.batch, progress.loss, progress.words = 0, 0.0, 0
        progress.schedule.observe(scores["cider"])
        progress.waited += 1
        if progress.best_score is None or scores["cider"] > progress.best_score:
            progress.best_score, progress.best_epoch = scores["cider"], progress.epoch
            progress.waited = 0
            save_best(self.state_folder, self.captioner, progress.epoch)
        self._save()
        discard_older(self.state_folder, progress.best_epoch or 0)
        return rows

    def _save(self) -> None:
        save_state(self.state_folder, self.captioner, self.optimiser, self.progress)
        self._saved = time.monotonic()
