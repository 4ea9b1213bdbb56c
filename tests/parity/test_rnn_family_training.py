"""Loss and training loop of the recurrent family against the values of the original program."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_networks import Golden
from recurrent_captioners import (
    GIVEN,
    NAMES,
    HeldFeatures,
    captioner_of,
    encoded,
    features_of,
    vocabulary_of,
)

from capscope.importers.rnn_family import to_original
from capscope.training.batches import Rows
from capscope.training.loop import Recipe, Trainer
from capscope.training.objectives import word_loss
from capscope.training.stages.stage import Corpus, Outcome
from capscope.training.stages.xe import CrossEntropy

LOSSES, WEIGHTS = 1e-4, 2e-5
PUBLISHED = {"order": "given", "last_batch": "drop", "per": "caption", "scheduled_sampling": 0.0}


@pytest.mark.parametrize(("key", "ignored"), [("ignore0", 0), ("noignore", -100)])
def test_the_temporal_softmax_loss(key: str, ignored: int) -> None:
    golden = Golden("rnn_family/temporal_loss.npz")
    scores, targets = golden["scores"].requires_grad_(), golden["targets"]
    counted = targets != ignored
    log_probs = scores[counted].log_softmax(-1)
    loss = word_loss(log_probs, targets[counted], len(targets), "caption")
    torch.testing.assert_close(loss, golden[f"loss_{key}"], **GIVEN)
    if f"grad_scores_{key}" in golden:
        loss.backward()
        torch.testing.assert_close(scores.grad, golden[f"grad_scores_{key}"], **GIVEN)


def test_nothing_but_padding_costs_nothing() -> None:
    golden = Golden("rnn_family/temporal_loss.npz")
    nothing = golden["scores"][:, :0].flatten(0, 1)
    loss = word_loss(nothing, torch.zeros(0, dtype=torch.long), len(golden["scores"]), "caption")
    assert float(loss) == float(golden["loss_all_null"])


class Watched(CrossEntropy):
    """Remembers the loss of each step."""

    losses: list[float]

    def step(self, batch: Rows) -> Outcome:
        outcome = super().step(batch)
        self.losses.append(outcome.loss.item())
        return outcome


@pytest.mark.parametrize("cell", NAMES)
def test_the_published_training_loop(cell: str, tmp_path: Path) -> None:
    golden = Golden(f"rnn_family/train_{cell}.npz")
    captioner, name = captioner_of(golden, "w0.")
    vocabulary = vocabulary_of(captioner.vocabulary_size)
    captions = encoded(golden["captions"], vocabulary)
    rows = torch.arange(len(captions.labels)).numpy()
    corpus = Corpus(captions, rows, vocabulary, HeldFeatures(features_of(golden)))  # type: ignore[arg-type]
    stage = Watched(captioner, corpus, PUBLISHED)
    stage.losses = []
    meta = golden.meta
    recipe = Recipe(
        epochs=meta["epochs"],
        epoch_steps=None,
        batch_size=meta["batch"],
        learning_rate=meta["lr"],
        schedule="step",
        decay=meta["lr_decay"],
        betas=(0.9, 0.999),
        clip_value=None,
        validation_images=1,
        validation_beam=1,
        patience=meta["epochs"],
        keep="last",
        checkpoint_seconds=1000,
        optimiser="adamw",
        weight_decay=0.01,
        decayed="all",
    )
    (tmp_path / "state").mkdir()
    trainer = Trainer(stage, lambda _: {"cider": 0.0}, recipe, seed=0, folder=tmp_path, key="")
    progress = trainer.run()
    assert progress.step == meta["epochs"] * meta["iters_per_epoch"]
    expected = golden["loss_history"]
    found = torch.tensor(stage.losses, dtype=expected.dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=LOSSES)
    for key, weight in to_original(name, captioner).items():
        torch.testing.assert_close(
            weight, golden[f"w1.{key}"], rtol=0, atol=WEIGHTS, msg=lambda text, key=key: key + text
        )
