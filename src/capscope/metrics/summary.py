"""Scores of all runs as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from capscope.metrics.registry import METRICS, describe
from capscope.metrics.runs import HUMAN, Row


def summary(rows: Sequence[Row]) -> str:
    """Return one table a split, a column per run and a line per metric, and the definitions."""
    lines = []
    names = [name for name in METRICS if any(name in row.measures for row in rows)]
    for split in dict.fromkeys(row.captions.split for row in rows):
        chosen = [row for row in rows if row.captions.split == split]
        titles = [
            " ".join(filter(None, [row.captions.system, row.captions.stage, _seed(row)]))
            for row in chosen
        ]
        table = [[f"{split}", *titles]]
        for name in names:
            table.append([name, *(_cell(row, name) for row in chosen)])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for first, *others in table:
            cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells]))
        lines.append("")
    for name in names:
        measures = [row.measures[name] for row in rows if name in row.measures]
        lines.append(f"{name}: {describe(name, measures[-1])}")
    return "\n".join(lines)


def _seed(row: Row) -> str:
    if row.captions.system == HUMAN:
        return "leave-one-out"
    return f"seed {row.captions.seed}" if row.captions.seed != "-" else ""


def _cell(row: Row, name: str) -> str:
    measure = row.measures.get(name)
    if measure is None:
        return "-"
    chance = "" if measure.chance is None else f" (chance {measure.chance:.3f})"
    return f"{measure.value:.3f}{chance}"
