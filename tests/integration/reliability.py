"""The table of what the long tests survived, which the documentation quotes."""

from __future__ import annotations

import csv
from pathlib import Path

TABLE = Path(__file__).resolve().parents[2] / "results" / "reliability.csv"
COLUMNS = ("fault", "survived", "tried")


def record(fault: str, survived: int, tried: int) -> None:
    """Write a line of the table, in place of an earlier one of the same fault."""
    lines: dict[str, dict[str, object]] = {}
    if TABLE.exists():
        with TABLE.open(encoding="utf-8") as stream:
            lines = {line["fault"]: dict(line) for line in csv.DictReader(stream)}
    lines[fault] = {"fault": fault, "survived": survived, "tried": tried}
    with TABLE.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[name] for name in sorted(lines))
