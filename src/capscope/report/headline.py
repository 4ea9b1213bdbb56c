"""The few numbers that a reader looks for first, each with what to compare it to."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from capscope.report.results import Results, RunResults

METRICS = ("CIDEr", "object_f1", "colour_accuracy", "left_right_accuracy")


@dataclass(frozen=True)
class Number:
    """A headline number."""

    name: str
    value: str
    beside: str
    """What it is to be compared with."""


def headline(results: Results, split: str = "test") -> dict[str, list[Number]]:
    """Return the headline numbers of every run, on one split."""
    return {
        run.title: [*_captions(results, run, split), *_truth(results, run, split)]
        for run in results.runs
    }


def as_text(results: Results) -> str:
    """Return the headline for the terminal: of one run in full, of several as a table."""
    found = headline(results)
    if len(found) > 1:
        return _table(results, found)
    lines = []
    for run, numbers in found.items():
        lines.append(f"{results.dataset}, test: {run}")
        width = max(len(number.name) for number in numbers)
        lines += [f"  {n.name.ljust(width)}  {n.value}  {n.beside}".rstrip() for n in numbers]
    return "\n".join(lines)


def _table(results: Results, found: dict[str, list[Number]], split: str = "test") -> str:
    """Return a row for each run, and one for the references scored against one another."""
    columns = list(dict.fromkeys(number.name for numbers in found.values() for number in numbers))
    rows = results.captions
    human = rows[(rows["split"] == split) & (rows["system"] == "human")].dropna(subset="value")
    known = {
        metric.replace("_", " "): f"{value:.2f}"
        for metric, value in zip(human["metric"], human["value"], strict=True)
    }
    cells = {"human": known} if known else {}
    for run, numbers in found.items():
        cells[run] = {number.name: number.value for number in numbers}
    titles = [f"{results.dataset}, {split}", *columns]
    lines = [[run, *(own.get(name, "-") for name in columns)] for run, own in cells.items()]
    lines.insert(0, titles)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rest = widths[1:]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], rest, strict=True))]
        )
        for line in lines
    )


def _captions(results: Results, run: RunResults, split: str) -> list[Number]:
    rows = results.captions[results.captions["split"] == split]
    mine = rows[
        (rows["system"] == run.system)
        & (rows["stage"] == run.stage)
        & (rows["seed"].astype("string") == str(run.seed))
    ].set_index("metric")
    human = rows[rows["system"] == "human"].set_index("metric")
    numbers = []
    for metric in METRICS:
        if metric not in mine.index:
            continue
        row = mine.loc[metric]
        beside = []
        if metric in human.index:
            beside.append(f"human {human['value'][metric]:.2f}")
        if pd.notna(row["chance"]):
            beside.append(f"chance {row['chance']:.2f}")
        name = metric.replace("_", " ")
        value = f"{row['value']:.2f}" if pd.notna(row["value"]) else "no such words"
        numbers.append(Number(name, value, f"({', '.join(beside)})" if beside else ""))
    return numbers


def _truth(results: Results, run: RunResults, split: str) -> list[Number]:
    """Compare LRP to pixels with attention, at the pixels and pooled to the cells of the grid."""
    rows = run.benchmarks.get("ground_truth")
    if rows is None:
        return []
    rows = rows[(rows["split"] == split) & (rows["word_kind"] == "noun")]
    values = rows.set_index(["resolution", "explainer", "measure"])["value"].to_dict()
    numbers = []
    for resolution, name, measure in (
        ("pixels", "LRP noun hit", "hit"),
        ("pooled", "LRP noun hit, pooled", "hit"),
        ("pixels", "LRP noun choice", "choice"),
    ):
        if (resolution, "lrp", measure) not in values:
            continue
        others = [
            f"{results.titles.get(other, other)} {values[resolution, other, measure]:.2f}"
            for other in ("attention", "attention_lrp", "random_decoder")
            if (resolution, other, measure) in values
        ]
        value = f"{values[resolution, 'lrp', measure]:.2f}"
        numbers.append(Number(name, value, f"({'; '.join(others)})" if others else ""))
    return numbers
