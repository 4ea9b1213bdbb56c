"""Explanation methods over several data sets: a table of methods x measures x data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from capscope.errors import CapscopeError
from capscope.report.table import Table, with_interval

RUN = ["dataset", "system", "stage", "seed", "explainer"]
"""What a row of the table is."""


def method_tables(folders: Sequence[Path], benchmarks: Sequence[str], split: str) -> list[Table]:
    """Return one table of all methods and measures, and one of the tests between methods.

    Parameters
    ----------
    folders : sequence of Path
        ``results/<data set>``, each with its report.
    benchmarks : sequence of str
        Whose measures are the columns.
    split : str

    Raises
    ------
    CapscopeError
        For a folder without a report, or without these benchmarks.
    """
    every, tests = (
        _chosen(folders, file, benchmarks, split) for file in ("matrix.csv", "paired_tests.csv")
    )
    if every.empty:
        raise CapscopeError(
            f"{', '.join(map(str, folders))}: no measurement of {', '.join(benchmarks)} on the "
            f"split {split}; add them to benchmarks.measures and run `snakemake all`"
        )
    lines = []
    for key, rows in every.groupby(RUN, sort=False):
        line: dict[str, Any] = dict(zip(RUN, map(str, key), strict=True))
        for row in rows.to_dict("records"):
            line[_heading(row)] = with_interval(row, 3)
        lines.append(line)
    note = (
        "A row per data set, run and explainer; values with 95 % intervals over images. "
        "docs/benchmarks.md says what the measures are."
    )
    found = [
        Table(
            f"methods_{split}",
            f"Methods over data sets, {split}",
            note,
            pd.DataFrame(lines).fillna("-"),
            tidy=every,
        )
    ]
    if not tests.empty:
        found.append(_tests(tests, split))
    return found


def _tests(tests: pd.DataFrame, split: str) -> Table:
    tests = tests[tests["compared"] == "explainers"]
    lines = [
        {
            "dataset": row["dataset"],
            "captioner": row["same"],
            "measure": _heading(row),
            "methods": f"{row['first']} - {row['second']}",
            "difference": f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            "p (Holm)": f"{row['p_holm']:.4f}",
        }
        for row in tests.to_dict("records")
    ]
    note = "Paired differences on the same images, p-values corrected for the number of pairs."
    title = f"Methods compared, {split}"
    return Table(f"methods_tests_{split}", title, note, pd.DataFrame(lines), tidy=tests)


def _heading(row: Any) -> str:
    """Return what a measure is called: where it is no noun at the visual features, that too."""
    words = [row["measure"]]
    words += [row["word_kind"]] if row["word_kind"] != "noun" else []
    words += [row["resolution"]] if row["resolution"] != "grid" else []
    return ", ".join(words)


def _chosen(
    folders: Sequence[Path], file: str, benchmarks: Sequence[str], split: str
) -> pd.DataFrame:
    frames = []
    for folder in folders:
        path = folder / "report" / "tables" / file
        try:
            frames.append(pd.read_csv(path))
        except FileNotFoundError as error:
            raise CapscopeError(f"{path} is not there: run `capscope report` first") from error
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
            raise CapscopeError(f"{path} is no table: {error}") from error
    every = pd.concat(frames, ignore_index=True)
    missing = {"dataset", "split", "benchmark", "measure"} - set(every.columns)
    if missing:
        raise CapscopeError(f"{file} lacks {', '.join(sorted(missing))}: run `capscope report`")
    return every[(every["split"] == split) & every["benchmark"].isin(benchmarks)]
