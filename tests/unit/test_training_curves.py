"""The figure of a training: which measures are drawn, over which steps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from capscope.report.figures import training_curves
from capscope.report.results import RunResults

EPOCHS = [
    (1, 10, "train", "loss", 3.0),
    (1, 10, "train", "learning_rate", 0.001),
    (1, 10, "val", "loss", 3.5),
    (1, 10, "val", "cider", 0.2),
    (2, 20, "train", "loss", 2.0),
    (2, 20, "train", "learning_rate", 0.0005),
    (2, 20, "val", "loss", 3.0),
    (2, 20, "val", "cider", 0.9),
]
STEPS = [(5, "loss", 4.0), (10, "loss", 2.5), (5, "learning_rate", 0.001)]


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    columns = ["epoch", "step", "split", "metric", "value"]
    pd.DataFrame(EPOCHS, columns=columns).to_csv(tmp_path / "metrics.csv", index=False)
    return RunResults(tmp_path, "lstm", "xe", 1, {"captioner": "lstm"}, {})


def test_losses_scores_and_learning_rates_are_drawn_over_steps(run: RunResults) -> None:
    figure = training_curves(run)
    assert figure is not None
    loss, score, rate = figure.panels
    assert [curve.label for curve in loss.curves] == ["training", "validation"]
    assert [list(curve.y) for curve in loss.curves] == [[3.0, 2.0], [3.5, 3.0]]
    assert [list(curve.y) for curve in score.curves] == [[0.2, 0.9]]
    assert [list(curve.y) for curve in rate.curves] == [[0.001, 0.0005]]
    drawn = [curve for panel in (loss, score, rate) for curve in panel.curves]
    assert {tuple(curve.x) for curve in drawn} == {(10, 20)}


def test_single_steps_stand_behind_the_means_of_epochs(run: RunResults) -> None:
    history = pd.DataFrame(STEPS, columns=["step", "metric", "value"])
    history.to_csv(run.folder / "history.csv", index=False)
    figure = training_curves(run)
    assert figure is not None
    loss, _, rate = figure.panels
    assert (loss.curves[0].thin, list(loss.curves[0].y)) == (True, [4.0, 2.5])
    assert list(rate.curves[0].y) == [0.001]


def test_a_run_that_was_imported_has_no_curves(tmp_path: Path) -> None:
    assert training_curves(RunResults(tmp_path, "lstm", "xe", 1, {}, {})) is None
