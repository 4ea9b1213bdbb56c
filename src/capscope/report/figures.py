"""Figures of the report: how training went, and what explainers find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from capscope.files import atomic_path
from capscope.report.results import Results, RunResults

INK = "#1f2933"
COLOURS = ("#0b6e99", "#d1495b")
CONTROL = "#b6bec8"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=144, metadata={"Software": None})


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
    steps = pd.read_csv(history).set_index("metric") if history.exists() else None
    trained = "reward" if ("train", "reward") in log.index else "loss"
    figure = Figure(figsize=(9.2, 2.6), layout="constrained")
    loss, score, rate = figure.subplots(1, 3)
    if steps is not None and trained in steps.index:
        noted = steps.loc[[trained]]
        loss.plot(noted["step"], noted["value"], color=CONTROL, linewidth=0.8)
    if steps is not None and "learning_rate" in steps.index:
        noted = steps.loc[["learning_rate"]]
        marker = "o" if len(noted) == 1 else ""  # a line of one point shows nothing
        rate.plot(noted["step"], noted["value"], color=COLOURS[0], marker=marker)
    else:
        _curve(rate, log, ("train", "learning_rate"), COLOURS[0])
    _curve(loss, log, ("train", trained), COLOURS[0], "training")
    if trained == "loss":
        _curve(loss, log, ("val", "loss"), COLOURS[1], "validation")
    _curve(score, log, ("val", "cider"), COLOURS[1])
    if len(loss.lines) > 1:
        loss.legend(frameon=False, fontsize=8)
    titles = (f"{trained}", "validation CIDEr", "learning rate")
    for axes, title in zip((loss, score, rate), titles, strict=True):
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("step", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        plain(axes)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    return figure


def _curve(
    axes: Axes, log: pd.DataFrame, key: tuple[str, str], colour: str, label: str = "_"
) -> None:
    """Draw a measure of epochs, if it was logged."""
    if key in log.index:
        curve = log.loc[[key]]
        axes.plot(
            curve["step"], curve["value"], color=colour, marker="o", markersize=3, label=label
        )


def explainer_bars(results: Results, run: RunResults) -> Figure | None:
    """Draw what share of nouns and colours each explainer finds, with intervals; controls grey."""
    rows = run.benchmarks.get("ground_truth")
    if rows is None or rows.empty:
        return None
    split = rows["split"].iloc[0]
    wanted = [("noun", "hit"), ("noun", "choice"), ("colour", "hit")]
    figure = Figure(figsize=(9.2, 5.2), layout="constrained")
    grid = figure.subplots(2, len(wanted), sharex=True)
    for line, resolution in enumerate(("grid", "pixels")):
        chosen = rows[(rows["split"] == split) & (rows["resolution"] == resolution)]
        names = list(dict.fromkeys(chosen["explainer"]))
        for axes, (kind, measure) in zip(grid[line], wanted, strict=True):
            part = chosen[(chosen["word_kind"] == kind) & (chosen["measure"] == measure)]
            part = part.set_index("explainer").reindex(names)
            values = part["value"].fillna(0).to_numpy()
            below = np.clip(values - part["low"].fillna(0).to_numpy(), 0, None)
            above = np.clip(part["high"].fillna(0).to_numpy() - values, 0, None)
            places = np.arange(len(names))
            colours = [CONTROL if name in results.controls else COLOURS[0] for name in names]
            axes.barh(places, values, xerr=[below, above], color=colours, ecolor=INK, height=0.7)
            axes.set_yticks(places, [results.titles.get(n, n) for n in names], fontsize=8)
            if axes is not grid[line][0]:
                axes.set_yticklabels([])
            axes.invert_yaxis()
            axes.set_xlim(0, 1)
            axes.set_title(f"{kind}: {measure} ({resolution}, {split})", fontsize=9, color=INK)
            plain(axes)
    return figure


def plain(axes: Axes) -> None:
    """Draw axes without a frame, on a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(axis="both", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
