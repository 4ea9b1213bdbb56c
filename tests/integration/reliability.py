"""The table of what the long tests survived, and how the documentation shows it.

``python reliability.py`` prints the tables of docs/reliability.md.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "results"
TABLE, SOAK = RESULTS / "reliability.csv", RESULTS / "soak.csv"
COLUMNS = ("fault", "of", "how", "survived", "tried")
STEPS, WORKFLOW, EVENTS = "killed step", "killed Snakemake", "killed at a file"
OBSTACLES, DAMAGED, HOSTILE = "obstacle", "damaged file", "hostile input"
IN_WORDS = {
    STEPS: "kills of a step at a random moment",
    EVENTS: "kills of a step as it makes, renames or removes a file",
    WORKFLOW: "kills of Snakemake, alone or with its jobs",
    OBSTACLES: "full and closed disks, little memory, other writers: named, and nothing lost",
    DAMAGED: "damaged files found before use",
    HOSTILE: "hostile inputs refused",
}
_recorded: list[dict[str, object]] = []


def record(fault: str, outcomes: Iterable[tuple[str, str, bool]]) -> None:
    """Keep what came of each try of a fault: of what, how, and whether it was survived."""
    survived: Counter[tuple[str, str]] = Counter()
    tried: Counter[tuple[str, str]] = Counter()
    for of, how, good in outcomes:
        tried[of, how] += 1
        survived[of, how] += good
    for (of, how), count in tried.items():
        values = (fault, of, how, survived[of, how], count)
        _recorded.append(dict(zip(COLUMNS, values, strict=True)))


def write_recorded() -> None:
    """Write the table, if all faults were tried in this run of the tests."""
    if {line["fault"] for line in _recorded} == set(IN_WORDS):
        order = list(IN_WORDS)
        write(TABLE, sorted(_recorded, key=lambda line: order.index(str(line["fault"]))))


def write(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    """Write lines as CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV."""
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def as_markdown(lines: list[dict[str, str]]) -> str:
    """Return the sums of each fault, and the kills by step and signal, as two tables."""
    text = ["| fault | survived | tried |", "|---|---|---|"]
    for fault, words in IN_WORDS.items():
        survived, tried = _sum(line for line in lines if line["fault"] == fault)
        text.append(f"| {words} | {survived} | {tried} |")
    kills = [line for line in lines if line["fault"] in (STEPS, WORKFLOW)]
    signals = list(dict.fromkeys(line["how"] for line in kills))
    text += ["", f"| killed | {' | '.join(signals)} |", "|---" * (len(signals) + 1) + "|"]
    for of in dict.fromkeys(line["of"] for line in kills):
        sums = [_sum(x for x in kills if (x["of"], x["how"]) == (of, how)) for how in signals]
        cells = (f"{survived} of {tried}" for survived, tried in sums)
        text.append(f"| {of} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def soak_as_markdown(lines: list[dict[str, str]]) -> str:
    """Return memory and time of each step by number of images, as a table."""
    steps = list(dict.fromkeys(line["step"] for line in lines))
    text = [f"| images | {' | '.join(steps)} |", "|---" * (len(steps) + 1) + "|"]
    for images in dict.fromkeys(line["images"] for line in lines):
        own = [line for line in lines if line["images"] == images]
        cells = (f"{line['memory_mb']} MB, {line['seconds']} s" for line in own)
        text.append(f"| {int(images):,} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _sum(lines: Iterable[dict[str, str]]) -> tuple[int, int]:
    pairs = [(int(line["survived"]), int(line["tried"])) for line in lines]
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


if __name__ == "__main__":
    print(as_markdown(read(TABLE)), soak_as_markdown(read(SOAK)), sep="\n", end="")
