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
    """Draw training loss (or reward) and validation CIDEr over epochs, or None without a log."""
    path = run.folder / "metrics.csv"
    if not path.exists():
        return None
    log = pd.read_csv(path).set_index(["split", "metric"]).sort_index()
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    trained = ("train", "reward") if ("train", "reward") in log.index else ("train", "loss")
    curves = {trained: f"training {trained[1]}", ("val", "cider"): "validation CIDEr"}
    for place, (key, title) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), place + 1)
        curve = log.loc[[key]]
        axes.plot(curve["epoch"], curve["value"], color=COLOURS[place], marker="o", markersize=3)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    return figure


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
            _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(axis="both", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
