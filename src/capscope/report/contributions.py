"""The figure of what words come from: image, segments, words before; by place, kind and layer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from capscope.report.figures import COLOURS, CONTROL, INK, plain
from capscope.report.results import Results, RunResults

PREFERRED = "alpha_beta_lrp"
"""What Wu et al. 2022 explain with; another explainer is taken where it was not run."""
FIRST, LAST = 2, 10
"""Positions that the figure of Wu et al. 2022 shows."""
KINDS = ("all", "object", "attribute", "relation", "function")
SOURCES = (("grid cells", COLOURS[0]), ("segments", "#7fb3c8"), ("words before", COLOURS[1]))


def contribution_figure(results: Results, run: RunResults) -> Figure | None:
    """Draw the benchmark `contribution` of a run, or None where it says nothing.

    The share of vision by position is the figure of Wu et al. 2022, with other runs of the stage in
    grey; means over captions that have a word there, with 95 % intervals.
    """
    rows = run.benchmarks.get("contribution")
    if rows is None or rows.empty:
        return None
    split, names = rows["split"].iloc[0], list(dict.fromkeys(rows["explainer"]))
    explainer = PREFERRED if PREFERRED in names else names[0]
    others = [one for one in results.runs if one is not run and one.stage == run.stage]
    figure = Figure(figsize=(9.2, 5.6), layout="constrained")
    (vision, entropy), (kinds, layers) = figure.subplots(2, 2)
    for axes, measure, title in (
        (vision, "vision", "share of vision"),
        (entropy, "entropy", "entropy of the map (nats)"),
    ):
        for other in others:
            _curve(axes, _chosen(other, explainer, split, measure), CONTROL, other.system)
        _curve(axes, _chosen(run, explainer, split, measure), COLOURS[0], run.system)
        axes.set_title(f"{title} by position", fontsize=10, color=INK)
        axes.set_xlabel("position of the word", fontsize=9)
    of_segments = _chosen(run, explainer, split, "segments")
    _curve(vision, of_segments, SOURCES[1][1], f"{run.system}: segments alone")
    if len(vision.lines) > 1:
        vision.legend(frameon=False, fontsize=8)
    by_kind = {
        measure: _chosen(run, explainer, split, measure)["value"]
        for measure in ("vision", "segments", "language")
    }
    _sources(kinds, by_kind)
    of_words = rows[(rows["explainer"] == explainer) & (rows["split"] == split)]
    _layers(layers, of_words[of_words["word_kind"] == "all"])
    for axes in (vision, entropy, kinds, layers):
        plain(axes)
    title = results.titles.get(explainer, explainer)
    figure.suptitle(f"{title}, {split}", fontsize=10, color=INK)
    return figure


def _chosen(run: RunResults, explainer: str, split: str, measure: str) -> pd.DataFrame:
    """Return value, low and high of a measure by kind of word."""
    rows = run.benchmarks.get("contribution", pd.DataFrame())
    if rows.empty:
        return pd.DataFrame(columns=["value", "low", "high"])
    wanted = (rows["explainer"] == explainer) & (rows["split"] == split)
    return rows[wanted & (rows["measure"] == measure)].set_index("word_kind")


def _curve(axes: Axes, chosen: pd.DataFrame, colour: str, label: str) -> None:
    places = [t for t in range(FIRST, LAST + 1) if f"position {t}" in chosen.index]
    if not places:
        return
    part = chosen.loc[[f"position {t}" for t in places]]
    axes.plot(places, part["value"], color=colour, marker="o", markersize=3, label=label)
    axes.fill_between(places, part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)


def _sources(axes: Axes, by_kind: dict[str, pd.Series[float]]) -> None:
    """Stack the sources of each kind of word; what rules lose is left open."""
    shown = [kind for kind in KINDS if kind in by_kind["vision"].index]

    def of(measure: str) -> NDArray[np.float64]:
        return np.asarray(by_kind[measure].reindex(shown).fillna(0.0), np.float64)

    parts = (of("vision") - of("segments"), of("segments"), of("language"))
    left = np.zeros(len(shown))
    for (label, colour), part in zip(SOURCES, parts, strict=True):
        if part.any():
            axes.barh(shown, part, left=left, color=colour, height=0.7, label=label)
            left = left + part
    axes.invert_yaxis()
    axes.set_title("sources by kind of word", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def _layers(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw what each layer of the decoder sends to the image."""
    values = rows.set_index("measure")
    names: Sequence[str] = [name for name in values.index if re.fullmatch(r"layer \d+", name)]
    axes.set_title("share that a layer of the decoder sends to the image", fontsize=10, color=INK)
    if not names:
        axes.text(0.5, 0.5, "no layers to tell apart", ha="center", color=INK, fontsize=9)
        return
    part = values.loc[list(names)]
    errors = [part["value"] - part["low"], part["high"] - part["value"]]
    axes.bar(names, part["value"], yerr=np.clip(errors, 0, None), color=COLOURS[0], ecolor=INK)
