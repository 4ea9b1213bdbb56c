"""Losses, schedules and whole training steps of the spatial transformer's program."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from spatial_captioners import load, regions, transformer

from capscope.importers.spatial import to_original
from capscope.training.batches import CaptionBatch
from capscope.training.loop import Recipe
from capscope.training.objectives import cross_entropy, self_critical_loss, word_loss
from capscope.training.optimisers import build_optimiser
from capscope.training.schedules import Schedule, sampling_probability

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
RECIPE: dict[str, Any] = {
    "epochs": 1,
    "epoch_steps": None,
    "batch_size": 1,
    "validation_images": 1,
    "validation_beam": 1,
    "patience": 1,
    "keep": "last",
    "checkpoint_seconds": 1.0,
}


def test_losses_are_the_originals() -> None:
    golden = load("losses.npz")
    log_probs = golden["logprobs"]
    steps = log_probs.shape[1]
    targets, mask = golden["target"][:, :steps], golden["mask"][:, :steps] > 0
    found = word_loss(log_probs[mask], targets[mask], len(targets))
    torch.testing.assert_close(found, golden["xe"], **CLOSE)
    smoothings = golden.keys("label_smoothing_")
    assert smoothings
    for key in smoothings:
        found = word_loss(
            log_probs[mask], targets[mask], 1, smoothing=float(key), published_mass=True
        )
        torch.testing.assert_close(found, golden[f"label_smoothing_{key}"], **CLOSE)
    # The formula that the next test holds ours to, where the fixture's reward differs by word.
    reward = golden["rl_reward"]
    said = torch.cat([torch.ones_like(golden["rl_seq"][:, :1]), golden["rl_seq"][:, :-1]], 1) > 0
    expected = -(golden["rl_logps"] * reward)[said].sum() / said.sum()
    torch.testing.assert_close(expected, golden["rl_loss"], **CLOSE)


def test_the_self_critical_loss_is_the_originals_with_one_reward_a_caption() -> None:
    golden = load("losses.npz")
    reward = golden["rl_reward"][:, :1].expand_as(golden["rl_reward"])
    said = torch.cat([torch.ones_like(golden["rl_seq"][:, :1]), golden["rl_seq"][:, :-1]], 1) > 0
    expected = -(golden["rl_logps"] * reward)[said].sum() / said.sum()
    found = self_critical_loss(golden["rl_logps"], golden["rl_seq"], reward[:, 0], end=0)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_label_smoothing_of_models_is_the_originals(smoothing: float) -> None:
    from spatial_captioners import MODELS

    compared = 0
    for name in MODELS:
        golden = load(name)
        labels, mask = golden["in/labels"], golden["in/label_masks"][:, 1:] > 0
        batch = CaptionBatch(labels[:, :-1], labels[:, 1:], mask)
        for key in golden.keys("loss/label_smoothing_"):
            found = cross_entropy(
                transformer(golden),
                regions(golden),
                batch,
                smoothing=float(key),
                published_mass=True,
            )
            expected = golden[f"loss/label_smoothing_{key}"]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            compared += 1
        log_probs = torch.randn(4, 9).log_softmax(-1)
        words = torch.tensor([1, 2, 8, 0])
        torch.testing.assert_close(
            word_loss(log_probs, words, 4, smoothing=smoothing),
            divergence(log_probs, words, smoothing),
        )
    assert compared


def divergence(log_probs: torch.Tensor, words: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the mean divergence from the smoothed distribution, as its definition says."""
    wanted = torch.full_like(log_probs, smoothing / (log_probs.shape[1] - 1))
    wanted.scatter_(1, words.unsqueeze(1), 1 - smoothing)
    return torch.nn.functional.kl_div(log_probs, wanted, reduction="batchmean")


def test_schedules_are_the_originals() -> None:
    golden = load("schedules.npz")
    names = golden.keys("noam_")
    assert names
    for name in names:
        size, factor, warm_up = (float(n) for n in re.findall(r"[\d.]+", name))
        peak = factor * (size * warm_up) ** -0.5
        schedule = Schedule("noam", peak, 1, warm_up=int(warm_up))
        for step, rate in zip(
            golden["steps"].tolist(), golden[f"noam_{name}"].tolist(), strict=True
        ):
            assert schedule.at(step - 1) == pytest.approx(rate, rel=1e-12)
    epochs = golden["epochs"].tolist()
    for name in golden.keys("lr_start"):
        rates = golden[f"lr_start{name}"].tolist()
        schedule = Schedule("constant", rates[0], len(epochs))
        if not name.startswith("-1"):
            start, every, decay = (float(n) for n in re.findall(r"[\d.]+", name))
            assert start == 0
            schedule = Schedule("step", rates[0], len(epochs), len(epochs), decay, every=int(every))
        assert [schedule.at(epoch) for epoch in epochs] == pytest.approx(rates, rel=1e-12)
    for name in golden.keys("ss_start"):
        found = [sampling_probability(e, int(name), 5, 0.05, 0.25, parity=True) for e in epochs]
        assert found == pytest.approx(golden[f"ss_start{name}"].tolist(), abs=1e-12)
    assert sampling_probability(7, 0, 5, 0.05, 0.25) == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["train5_adam.npz", "train5_noam.npz"])
def test_steps_of_training_end_at_the_originals_weights(name: str) -> None:
    golden = load(name)
    meta = golden.meta
    captioner, features = transformer(golden, "w0/"), regions(golden)
    options: dict[str, Any] = {"schedule": "constant", "learning_rate": float(golden["lr"][0])}
    options["betas"] = (0.9, 0.999)
    schedule = Schedule("constant", float(golden["lr"][0]), 1)
    if meta["optimiser"] == "noam":
        hidden = golden["w0/att_embed.0.weight"].shape[0]
        peak = meta["factor"] * (hidden * meta["warmup"]) ** -0.5
        options |= {"betas": (0.9, 0.98), "epsilon": 1e-9}
        schedule = Schedule("noam", peak, 1, warm_up=meta["warmup"])
    recipe = Recipe(clip_value=meta["clip"], **RECIPE, **options)
    optimiser = build_optimiser(captioner, recipe)
    labels, mask = golden["in/labels"], golden["in/label_masks"][:, 1:] > 0
    batch = CaptionBatch(labels[:, :-1], labels[:, 1:], mask)
    for step, expected in enumerate(golden["loss"].tolist()):
        assert schedule.at(step) == pytest.approx(float(golden["lr"][step]), rel=1e-9)
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(step)
        optimiser.zero_grad()
        loss = cross_entropy(captioner, features, batch)
        assert loss.item() == pytest.approx(expected, abs=1e-4)
        loss.backward()
        torch.nn.utils.clip_grad_value_(captioner.parameters(), meta["clip"])
        optimiser.step()
    for key, tensor in to_original("spatial", captioner.state_dict()).items():
        if key not in meta["unstable_keys"]:
            torch.testing.assert_close(tensor, golden[f"w5/{key}"], rtol=0, atol=1e-4, msg=key)
