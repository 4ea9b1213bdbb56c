"""Learning rates against torch's own schedulers."""

from __future__ import annotations

import pytest
import torch

from capscope.training.schedules import Schedule, sampling_probability


def test_halving_is_torchs_reduction_on_a_plateau() -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.8)
    twin = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=0.5, patience=3, threshold=0
    )
    schedule = Schedule("halving", 0.8, 100)
    scores = [1, 2, 2, 2, 2, 2, 2, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 4]
    for score in scores:
        schedule.observe(float(score))
        twin.step(score)
        assert schedule.at(0) == pytest.approx(optimiser.param_groups[0]["lr"])
    assert schedule.at(0) < 0.8


def test_noam_rises_to_its_highest_rate_and_falls_with_the_root_of_the_step() -> None:
    schedule = Schedule("noam", 0.5, 1000, warm_up=10)
    rates = [schedule.at(step) for step in range(1000)]
    assert max(rates) == rates[9] == 0.5
    assert rates[4] == pytest.approx(0.25)
    assert rates[39] == pytest.approx(0.25)


def test_a_step_decay_waits_so_many_epochs() -> None:
    schedule = Schedule("step", 1.0, 60, epochs=6, decay=0.1, every=3)
    assert [schedule.at(10 * epoch) for epoch in range(6)] == pytest.approx([1] * 3 + [0.1] * 3)


def test_scheduled_sampling_grows_up_to_its_most() -> None:
    found = [sampling_probability(epoch, 0, 2, 0.1, 0.25) for epoch in range(8)]
    assert found == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2, 0.25, 0.25])
    assert sampling_probability(5, -1, 2, 0.1, 0.25) == 0
    assert sampling_probability(5, 0, 2, 0.1, 0.25, parity=True) == 0
