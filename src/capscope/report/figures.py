"""Figures of a run: how training went, and what explainers find."""

from __future__ import annotations

import pandas as pd

from capscope.report.charts import Bars, Curve, Curves, Figure, Part
from capscope.report.results import Results, RunResults


def training_curves(run: RunResults) -> Figure | None:
    """Draw loss, validation CIDEr and learning rate over steps, or None without a log.

    In training the loss (or the reward) of single steps stands behind the means of epochs; what
    else was logged of training, such as the probability of scheduled sampling, has no curve.
    """
    path = run.folder / "metrics.csv"
    if not path.exists():
        return None
    log = pd.read_csv(path).set_index(["split", "metric"]).sort_index()
    history = run.folder / "history.csv"
    steps = pd.read_csv(history).set_index("metric") if history.exists() else pd.DataFrame()
    trained = "reward" if ("train", "reward") in log.index else "loss"
    losses, rates = [], []
    if trained in steps.index:
        noted = steps.loc[[trained]]
        losses.append(Curve("", "muted", *_points(noted), thin=True))
    losses += _curve(log, ("train", trained), "training", "one")
    if trained == "loss":
        losses += _curve(log, ("val", "loss"), "validation", "two")
    if "learning_rate" in steps.index:
        rates.append(Curve("learning rate", "one", *_points(steps.loc[["learning_rate"]])))
    else:
        rates += _curve(log, ("train", "learning_rate"), "learning rate", "one")
    panels = [
        Curves(trained, "step", losses),
        Curves("validation CIDEr", "step", _curve(log, ("val", "cider"), "CIDEr", "two")),
        Curves("learning rate", "step", rates),
    ]
    return Figure(f"Training: {run.title}", panels)


def _points(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    return rows["step"].tolist(), rows["value"].tolist()


def _curve(log: pd.DataFrame, key: tuple[str, str], label: str, colour: str) -> list[Curve]:
    """Return a measure of epochs, if it was logged."""
    return [Curve(label, colour, *_points(log.loc[[key]]))] if key in log.index else []


def explainer_bars(results: Results, run: RunResults) -> Figure | None:
    """Draw what share of nouns and colours each explainer finds, with intervals; controls grey."""
    rows = run.benchmarks.get("ground_truth")
    if rows is None or rows.empty:
        return None
    split = rows["split"].iloc[0]
    rows = rows[rows["split"] == split]
    panels = []
    for resolution in ("grid", "pixels"):
        for kind, measure in (("noun", "hit"), ("noun", "choice"), ("colour", "hit")):
            part = rows[
                (rows["resolution"] == resolution)
                & (rows["word_kind"] == kind)
                & (rows["measure"] == measure)
                & rows["value"].notna()
            ].sort_values("value", ascending=False, kind="stable")
            if part.empty:
                continue
            names = part["explainer"].tolist()
            panels.append(
                Bars(
                    f"{kind}: {measure} ({resolution}, {split})",
                    [results.titles.get(name, name) for name in names],
                    [Part("", "one", part["value"].tolist())],
                    part["low"].tolist(),
                    part["high"].tolist(),
                    [name in results.controls for name in names],
                )
            )
    return Figure(f"What explainers find: {run.title}", panels) if panels else None
