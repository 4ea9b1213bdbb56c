"""Paper against ours: published values, the difference, the tolerance band, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from capscope.report.results import Results
from capscope.report.table import Table

NOT_AVAILABLE = "not available"
NOT_RUN = "not run"
NOT_COMPUTED = "not computed"
"""Stands in the definition of a metric whose model was missing, before what to do about it."""
BAND = 0.03
"""Tolerance, as a share of the published value, where the file names none: others who trained
published captioners again ended 2 % below the published CIDEr."""
KEYS = ("system", "stage", "metric")


def published_tables(results: Results) -> list[Table]:
    """Return the table of published values beside ours, if there are any.

    Ours are means over seeds on the test split, or on the first where there is none; ``validation
    CIDEr`` is the best of the training, ``training loss`` that of the last logged step.
    They exist only for runs on the data set of the row, whatever it is called here: nothing is
    compared across data sets.
    """
    if results.published.empty:
        return []
    ours, here = _ours(results), {results.dataset, results.reader}
    rows = results.published.to_dict("records")
    lines = [_line(row, ours if row["dataset"] in here else {}) for row in rows]
    lines.sort(key=lambda line: line["dataset"] not in here)
    note = (
        "Ours are of this run, mean over seeds. Band: the tolerance that the file of published "
        f"values gives, else {BAND:.0%} of the value. A value that nobody has is not guessed."
    )
    return [Table("published", "Paper against ours", note, pd.DataFrame(lines).fillna(""))]


def _ours(results: Results) -> dict[tuple[str, ...], float]:
    """Return our mean over seeds by system, stage and metric."""
    splits = set(results.captions["split"])
    split = "test" if "test" in splits else min(splits)  # coco_pt has no test split
    scores = results.captions
    test = scores[(scores["system"] != "human") & (scores["split"] == split)]
    means = test.groupby(list(KEYS))["value"].mean().reset_index().to_dict("records")
    found = {tuple(str(row[name]) for name in KEYS): float(row["value"]) for row in means}
    trained: dict[tuple[str, ...], list[float]] = {}
    for run in results.runs:
        value = run.info.get("validation_cider")
        if value is not None:
            trained.setdefault((run.system, run.stage, "validation CIDEr"), []).append(float(value))
        for loss in _last_loss(run.folder / "history.csv"):
            trained.setdefault((run.system, run.stage, "training loss"), []).append(loss)
    return found | {key: sum(values) / len(values) for key, values in trained.items()}


def _last_loss(history: Path) -> list[float]:
    """Return the loss of the last step that a training logged, if there is one."""
    if not history.exists():
        return []
    steps = pd.read_csv(history)
    return [float(loss) for loss in steps[steps["metric"] == "loss"]["value"].tail(1)]


def _line(row: dict[Any, Any], ours: dict[tuple[str, ...], float]) -> dict[str, str]:
    line = {name: str(row[name]) for name in ("dataset", *KEYS)}
    condition = row.get("condition")
    line["condition"] = "" if pd.isna(condition) else str(condition)
    paper, mine = row["value"], ours.get(tuple(line[name] for name in KEYS))
    line |= {"paper": NOT_AVAILABLE if pd.isna(paper) else f"{paper:g}", "ours": NOT_RUN}
    line |= {"difference": "", "band": "", "verdict": ""}
    if mine is not None and pd.isna(mine):
        line["ours"] = NOT_COMPUTED
    elif mine is not None:
        line |= {"ours": f"{mine:.4f}", "verdict": NOT_AVAILABLE}
        if pd.notna(paper):
            line |= _judged(mine, paper, row.get("tolerance"))
    return line | {"source": str(row["source"])}


def _judged(mine: float, paper: float, tolerance: float | None) -> dict[str, str]:
    """Return the difference, the band around the published value, and on which side we are."""
    band = abs(paper) * BAND if pd.isna(tolerance) else float(tolerance)
    difference = mine - paper
    outside = "higher" if difference > 0 else "lower"
    return {
        "difference": f"{difference:+.4f}",
        "band": f"± {band:.4f}",
        "verdict": "within the band" if abs(difference) <= band else outside,
    }
