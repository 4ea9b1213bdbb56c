"""A table as a reader sees it, and its renderings as CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from capscope.files import write_text

NARROW = 5
"""Columns of a LaTeX table that stays within the column of a paper."""
WORDY = 60
"""From so many characters on a cell of it is broken into lines."""


@dataclass(frozen=True)
class Table:
    """A table as a reader sees it: every cell is text."""

    name: str
    """File name without suffix."""
    title: str
    note: str
    cells: pd.DataFrame
    definitions: Mapping[str, str] = field(default_factory=dict)
    """What each column measures, where its name does not say."""
    tidy: pd.DataFrame | None = None
    """What the CSV holds instead of the cells: one row per measurement."""
    run: str = ""
    """Name of the run whose page has it; without, it is about all runs."""


def write_table(table: Table, folder: Path) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.tex``."""
    values = table.cells if table.tidy is None else table.tidy
    write_text(folder / f"{table.name}.csv", values.to_csv(index=False))
    head = f"**{table.title}.** {table.note}\n\n"
    rows = table.cells.to_markdown(index=False) + "\n"
    terms = "".join(f"* {name}: {text}\n" for name, text in table.definitions.items())
    write_text(folder / f"{table.name}.md", head + rows + ("\n" + terms if terms else ""))
    write_text(folder / f"{table.name}.tex", latex(table))


def latex(table: Table) -> str:
    """Return a table to paste into a paper; one of many columns is as wide as the page."""
    wordy = [table.cells[name].astype(str).str.len().max() > WORDY for name in table.cells]
    text = table.cells.to_latex(
        index=False,
        column_format="".join(r"p{0.45\textwidth}" if one else "l" for one in wordy),
        escape=True,
        caption=_escape(f"{table.title}. {table.note}"),
        label=f"tab:{table.name}",
        position="tb",
    )
    if len(table.cells.columns) <= NARROW:
        return f"% needs \\usepackage{{booktabs}}\n{text}"
    text = text.replace("{table}", "{table*}").replace("\\begin{table*}[tb]", "\\begin{table*}[t]")
    text = text.replace("\\begin{tabular}", "\\resizebox{\\textwidth}{!}{%\n\\begin{tabular}")
    text = text.replace("\\end{tabular}", "\\end{tabular}}")
    return f"% needs \\usepackage{{booktabs,graphicx}}\n{text}"


def with_interval(row: Mapping[Hashable, Any], digits: int = 2) -> str:
    """Return a value and its 95 % interval, such as ``0.86 [0.83, 0.89]``; a dash for nothing."""
    value, low, high = (f"{row[key]:.{digits}f}" for key in ("value", "low", "high"))
    if value == "nan":
        return "-"
    return f"{value} [{low}, {high}]" if "nan" not in (low, high) else value


def _escape(text: str) -> str:
    """Escape what LaTeX reads as a command in a caption."""
    return re.sub(r"([%_&#${}])", r"\\\1", text.replace("\\", ""))
