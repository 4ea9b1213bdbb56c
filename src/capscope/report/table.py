"""A table as a reader sees it, and its renderings as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from capscope.files import write_text


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
    latex = table.cells.to_latex(
        index=False,
        escape=True,
        caption=_escape(f"{table.title}. {table.note}"),
        label=f"tab:{table.name}",
    )
    write_text(folder / f"{table.name}.tex", latex)


def with_interval(row: Mapping[Hashable, Any], digits: int = 2) -> str:
    """Return a value and its 95 % interval, such as ``0.86 [0.83, 0.89]``; a dash for nothing."""
    value, low, high = (f"{row[key]:.{digits}f}" for key in ("value", "low", "high"))
    if value == "nan":
        return "-"
    return f"{value} [{low}, {high}]" if "nan" not in (low, high) else value


def _escape(text: str) -> str:
    """Escape what LaTeX reads as a command in a caption."""
    return text.replace("\\", "").replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
