"""The figure of what words come from: image, segments, words before; by place, kind and layer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd

from capscope.report.charts import Bars, Curve, Curves, Figure, Part
from capscope.report.results import Results, RunResults

PREFERRED = "alpha_beta_lrp"
"""What Wu et al. 2022 explain with; another explainer is taken where it was not run."""
FIRST, LAST = 2, 10
"""Positions that the figure of Wu et al. 2022 shows."""
KINDS = ("all", "object", "attribute", "relation", "function")


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
    panels: list[Curves | Bars] = []
    for measure, title in (
        ("vision", "share of vision"),
        ("entropy", "entropy of the map (nats)"),
    ):
        curves = [
            curve
            for other in others
            for curve in _curve(_chosen(other, explainer, split, measure), "other runs", "muted")
        ]
        curves += _curve(_chosen(run, explainer, split, measure), run.system, "one")
        if measure == "vision":
            segments = _chosen(run, explainer, split, "segments")
            curves += _curve(segments, f"{run.system}: segments alone", "three")
        panels.append(Curves(f"{title} by position", "position of the word", curves))
    by_kind = {
        measure: _chosen(run, explainer, split, measure)["value"]
        for measure in ("vision", "segments", "language")
    }
    panels.append(_sources(by_kind))
    of_words = rows[(rows["explainer"] == explainer) & (rows["split"] == split)]
    panels += _layers(of_words[of_words["word_kind"] == "all"])
    title = results.titles.get(explainer, explainer)
    return Figure(f"Where words come from, by {title} ({split}): {run.title}", panels, columns=2)


def _chosen(run: RunResults, explainer: str, split: str, measure: str) -> pd.DataFrame:
    """Return value, low and high of a measure by kind of word."""
    rows = run.benchmarks.get("contribution", pd.DataFrame())
    if rows.empty:
        return pd.DataFrame(columns=["value", "low", "high"])
    wanted = (rows["explainer"] == explainer) & (rows["split"] == split)
    return rows[wanted & (rows["measure"] == measure)].set_index("word_kind")


def _curve(chosen: pd.DataFrame, label: str, colour: str) -> Iterator[Curve]:
    places = [t for t in range(FIRST, LAST + 1) if f"position {t}" in chosen.index]
    if places:
        part = chosen.loc[[f"position {t}" for t in places]]
        behind = colour == "muted"
        low, high = ([] if behind else part[side].tolist() for side in ("low", "high"))
        yield Curve(label, colour, places, part["value"].tolist(), low, high, behind)


def _sources(by_kind: dict[str, pd.Series[float]]) -> Bars:
    """Stack the sources of each kind of word; what rules lose is left open."""
    shown = [kind for kind in KINDS if kind in by_kind["vision"].index]
    vision, segments, language = (
        by_kind[measure].reindex(shown).fillna(0.0)
        for measure in ("vision", "segments", "language")
    )
    parts = [
        Part("grid cells" if segments.any() else "image", "one", (vision - segments).tolist()),
        Part("segments", "three", segments.tolist()),
        Part("words before", "two", language.tolist()),
    ]
    return Bars("sources by kind of word", shown, [part for part in parts if any(part.values)])


def _layers(rows: pd.DataFrame) -> list[Bars]:
    """Draw what each layer of the decoder sends to the image, if there are layers."""
    values = rows.set_index("measure")
    names = [name for name in values.index if re.fullmatch(r"layer \d+", name)]
    if not names:
        return []
    part = values.loc[names]
    parts = [Part("", "one", part["value"].tolist())]
    title = "share that a layer of the decoder sends to the image"
    return [Bars(title, names, parts, part["low"].tolist(), part["high"].tolist())]
