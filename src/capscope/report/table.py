"""A table as a reader sees it, and its renderings as CSV, Markdown and LaTeX."""

from __future__ import annotations

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
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


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
    rows = markdown(table.cells)
    terms = "".join(f"* {name}: {text}\n" for name, text in table.definitions.items())
    write_text(folder / f"{table.name}.md", head + rows + ("\n" + terms if terms else ""))
    write_text(folder / f"{table.name}.tex", latex(table))


def markdown(cells: pd.DataFrame) -> str:
    """Return the cells as a table of Markdown, which a bar in a cell does not break."""
    lines = [list(cells.columns), ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
    texts = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in texts)


def latex(table: Table) -> str:
    """Return a table to paste into a paper; one of many columns is as wide as the page."""
    wordy = [table.cells[name].astype(str).str.len().max() > WORDY for name in table.cells]
    wide = len(table.cells.columns) > NARROW
    columns = "".join(r"p{0.45\textwidth}" if one else "l" for one in wordy)
    head, *rows = (
        _line(" & ".join(_escaped(str(cell)) for cell in line))
        for line in (list(table.cells.columns), *table.cells.to_numpy().tolist())
    )
    tabular = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows]
    tabular += [r"\bottomrule", r"\end{tabular}" + ("}" if wide else "")]
    if wide:
        tabular.insert(0, r"\resizebox{\textwidth}{!}{%")
    kind, place = ("table*", "t") if wide else ("table", "tb")
    lines = [
        rf"% needs \usepackage{{booktabs{',graphicx' if wide else ''}}}",
        rf"\begin{{{kind}}}[{place}]",
        rf"\caption{{{_escaped(f'{table.title}. {table.note}')}}}",
        rf"\label{{tab:{table.name}}}",
        *tabular,
        rf"\end{{{kind}}}",
    ]
    return "\n".join(lines) + "\n"


def with_interval(row: Mapping[Hashable, Any], digits: int = 2) -> str:
    """Return a value and its 95 % interval, such as ``0.86 [0.83, 0.89]``; a dash for nothing."""
    value, low, high = (
        f"{round(row[key], digits) + 0.0:.{digits}f}" for key in ("value", "low", "high")
    )
    if value == "nan":
        return "-"
    return f"{value} [{low}, {high}]" if "nan" not in (low, high) else value


def _line(cells: str) -> str:
    """End a line; what the next begins with must not be taken for an option of its end."""
    return ("{}" if cells.startswith(("[", "*")) else "") + cells + r" \\"


def _escaped(text: str) -> str:
    """Return text of which LaTeX reads nothing as a command, and every character is one it has."""
    return "".join(_LATEX.get(character, character) for character in text)
