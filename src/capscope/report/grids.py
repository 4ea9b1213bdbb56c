"""What the pages show of the numbers: the headline by captioner, and the matrix by split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from capscope.report.evidence import Evidence
from capscope.report.explanations import OVERVIEW, Column
from capscope.report.headline import METRICS
from capscope.report.matrix import KEYS
from capscope.report.table import Table, with_interval

ROW = ("system", "stage", "seed", "explainer")
"""What a row of the matrix is."""


def headline_grid(evidence: Evidence, split: str, url: str) -> dict[str, Any]:
    """Return a row per run, and human captions; a column per metric and for the hits of LRP.

    `url` with a run's name in place of ``{}`` leads to its page; empty: rows are no links.
    """
    results = evidence.results
    scores = results.captions[results.captions["split"] == split]
    columns = [_metric_column(scores, metric) for metric in METRICS]
    columns += [
        _hit_column(evidence, split, resolution, heading)
        for resolution, heading in (
            ("pixels", "LRP finds nouns, pixels"),
            ("pooled", "pooled to the grid"),
        )
    ]
    columns = [column for column in columns if column["values"]]
    rows = [("human", "human, leave-one-out", "")]
    rows += [(run.name, run.title, url.format(run.name)) for run in results.runs]
    return {
        "columns": [{"name": column["name"]} for column in columns],
        "rows": [
            {
                "title": title,
                "url": target,
                "cells": [_cell(column, name) for column in columns],
            }
            for name, title, target in rows
        ],
    }


def _metric_column(scores: pd.DataFrame, metric: str) -> dict[str, Any]:
    rows = scores[(scores["metric"] == metric) & scores["value"].notna()]
    values = {_name(row): row for row in rows.to_dict("records")}
    chance = rows["chance"].dropna()
    name = metric.replace("_", " ")
    return {
        "name": f"{name} (chance {chance.iloc[0]:.2f})" if len(chance) else name,
        "values": values,
        "end": max(1.0, float(rows["high"].fillna(rows["value"]).max())) if len(rows) else 1.0,
    }


def _hit_column(evidence: Evidence, split: str, resolution: str, heading: str) -> dict[str, Any]:
    values = {}
    if len(evidence.matrix):
        rows = evidence.matrix.query(
            "split == @split and benchmark == 'ground_truth' and resolution == @resolution"
            " and explainer == 'lrp' and word_kind == 'noun' and measure == 'hit'"
        )
        values = {_name(row): row for row in rows.to_dict("records")}
    return {"name": heading, "values": values, "end": 1.0}


def _name(row: dict[Any, Any]) -> str:
    """Return the name of the run that a row is of, as `RunResults.name`."""
    if row["system"] == "human":
        return "human"
    return f"{row['system']}_{row['stage']}_seed{row['seed']}"


def _cell(column: dict[str, Any], name: str) -> dict[str, Any] | None:
    row = column["values"].get(name)
    if row is None:
        return None
    end, value = column["end"], float(row["value"])
    low, high = (value if pd.isna(row[side]) else float(row[side]) for side in ("low", "high"))
    place = f"--low:{low / end:.4f};--high:{high / end:.4f};--value:{value / end:.4f}"
    human = column["values"].get("human")
    if human is not None:
        place += f";--human:{min(1.0, float(human['value']) / end):.4f}"
    return {"value": f"{value:.6f}", "text": f"{value:.2f}", "place": place}


def matrix_grids(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Yield for each split the matrix as shaded cells: a row per run and explainer."""
    if evidence.matrix.empty:
        return
    for split, rows in evidence.matrix.groupby("split", sort=False):
        found = dict(iter(rows.groupby(KEYS, sort=False)))
        columns = [column for column in OVERVIEW if column[1:5] in found]
        shaded = [_shaded(found[column[1:5]], column) for column in columns]
        lines = []
        for row in rows[[*ROW, "control"]].drop_duplicates().itertuples(index=False):
            cells = [column.get(tuple(row)[: len(ROW)]) for column in shaded]
            if any(cells):
                lines.append(
                    {
                        "captioner": f"{row.system} {row.stage} (seed {row.seed})",
                        "explainer": evidence.title(str(row.explainer)),
                        "control": bool(row.control),
                        "cells": cells,
                    }
                )
        if lines:
            yield {
                "split": split,
                "columns": columns,
                "rows": lines,
                "best": _best(evidence, str(split)),
                "means": _means(evidence, rows, columns),
            }


def _best(evidence: Evidence, split: str) -> str:
    """Return the title of the run with the best CIDEr, which is what is looked at first."""
    scores = evidence.results.captions
    scores = scores[(scores["split"] == split) & (scores["metric"] == "CIDEr")]
    values = {_name(row): row["value"] for row in scores.to_dict("records")}
    return max(evidence.results.runs, key=lambda run: values.get(run.name, -1.0)).title


def _means(
    evidence: Evidence, rows: pd.DataFrame, columns: Sequence[Column]
) -> list[dict[str, Any]]:
    """Return a line for each explainer: the mean over captioners of every column, shaded."""
    means = rows.groupby([*KEYS, "explainer"])["value"].mean().dropna()
    found = {column: means.loc[column[1:5]] for column in columns if column[1:5] in means.index}
    lines = []
    controls = dict(zip(rows["explainer"], rows["control"], strict=True))
    for name, control in sorted(controls.items(), key=lambda item: bool(item[1])):
        cells = [
            _mean_cell(found[column], str(name), column.direction) if column in found else None
            for column in columns
        ]
        if any(cells):
            title = evidence.title(str(name))
            lines.append({"explainer": title, "control": bool(control), "cells": cells})
    return lines


def _mean_cell(values: pd.Series, name: str, direction: str) -> dict[str, str] | None:
    if name not in values:
        return None
    least, most, value = values.min(), values.max(), values[name]
    share = (value - least) / ((most - least) or 1.0)
    share = 1 - share if direction == "lower" else share
    texts = {
        "value": f"{value:.6f}",
        "text": f"{round(value, 2) + 0.0:.2f}",
        "share": f"{share:.2f}",
    }
    return texts | {"interval": ""}


def _shaded(rows: pd.DataFrame, column: Column) -> dict[tuple[Any, ...], dict[str, str]]:
    """Return the cells of a column, each with how good it is among them: 0 worst, 1 best."""
    least, most = rows["value"].min(), rows["value"].max()
    cells = {}
    for row in rows.dropna(subset=["value"]).to_dict("records"):
        share = (row["value"] - least) / ((most - least) or 1.0)
        text, _, interval = with_interval(row).partition(" ")
        cells[tuple(row[name] for name in ROW)] = {
            "value": f"{row['value']:.6f}",
            "text": text,
            "interval": interval,
            "share": f"{1 - share if column.direction == 'lower' else share:.2f}",
        }
    return cells


def paired_tables(evidence: Evidence) -> list[Table]:
    """Return LRP against the other explainers, by captioner, at the pixels and pooled."""
    tables = []
    tests = evidence.tests
    for resolution, where in (("pixels", "at the pixels"), ("pooled", "pooled to the grid")):
        if tests.empty:
            break
        rows = tests.query(
            "compared == 'explainers' and split == @evidence.split and measure == 'hit'"
            " and benchmark == 'ground_truth' and resolution == @resolution"
        )
        rows = rows[(rows["first"] == "lrp") | (rows["second"] == "lrp")]
        lines: dict[str, dict[str, str]] = {}
        for row in rows.to_dict("records"):
            sign = 1 if row["first"] == "lrp" else -1
            other = row["second"] if sign == 1 else row["first"]
            low, high = sorted((sign * row["low"], sign * row["high"]))
            p = "-" if pd.isna(row["p_holm"]) else f"{row['p_holm']:.3f}"
            line = lines.setdefault(str(row["same"]), {"captioner": str(row["same"])})
            text = f"{sign * row['difference']:+.2f} [{low:+.2f}, {high:+.2f}], p {p}"
            line[evidence.title(str(other))] = text
        if lines:
            tables.append(
                Table(
                    f"lrp_against_{resolution}",
                    f"LRP against other explainers: nouns found, {where}, {evidence.split}",
                    "Difference of the share of nouns whose object is found, [95 % interval], and "
                    "p-value of the paired t-test over images, corrected for all tests of the "
                    "captioner (Holm). paired_tests.csv has all pairs and measures.",
                    pd.DataFrame(list(lines.values())).fillna("-"),
                )
            )
    return tables
