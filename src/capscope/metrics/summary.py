"""Scores of all runs as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from capscope.metrics.registry import describe, metric
from capscope.metrics.rows import Row, metric_names, splits_of
from capscope.metrics.tables import Line, Tables
from capscope.metrics.task import NOT_COMPUTED, is_computed

COLUMNS = 6
"""Runs beside each other; more go below."""
MOST_PAIRS = 3
"""Pairs of systems that are compared on the terminal; the table has all of them."""


def summary(rows: Sequence[Row], tables: Tables) -> str:
    """Return for each split a column per run, a line per metric; seeds, pairs, definitions."""
    lines = []
    for split, of_split in splits_of(rows).items():
        lines += _scores(split, of_split)
        lines += _seeds([line for line in tables.seeds if line["split"] == split])
        lines += _pairs([line for line in tables.comparisons if line["split"] == split])
    return "\n".join([*lines, *_definitions(rows)])


def _definitions(rows: Sequence[Row]) -> list[str]:
    """Return what each metric is; of cut-offs (``word_f1@10``) the words, once."""
    definitions = {}
    for name in metric_names(rows):
        measure = [row.measures[name] for row in rows if name in row.measures][-1]
        base, at, cutoff = name.partition("@")
        if at:
            definitions[base] = metric(name).definition
            definitions[f"@{cutoff}"] = measure.note
        else:
            definitions[name] = describe(name, measure)
    return [f"{name}: {text}" for name, text in definitions.items()]


def _scores(split: str, rows: Sequence[Row]) -> list[str]:
    lines = []
    for start in range(0, len(rows), COLUMNS):
        part = rows[start : start + COLUMNS]
        table = [[split, *(row.captions.title for row in part)]]
        for name in metric_names(rows):
            table.append([name, *(_cell(row, name) for row in part)])
        lines += [*_aligned(table), ""]
    signatures = {row.captions.title: row.captions.signature for row in rows}
    signed = [f"{title}: {text}" for title, text in signatures.items() if text]
    return [*lines, *signed, *([""] if signed else [])]


def _seeds(lines: Sequence[Line]) -> list[str]:
    """Return mean and spread over seeds of the systems that have several."""
    several = [line for line in lines if line["seeds"] > 1]
    if not several:
        return []
    titles = {
        (line["system"], line["stage"]): f"{line['system']} {line['stage']}, {line['seeds']} seeds"
        for line in several
    }
    cells = {
        (line["system"], line["stage"], line["metric"]): f"{line['mean']:.3f} +- {line['sd']:.3f}"
        for line in several
    }
    text = []
    keys = list(titles)
    for start in range(0, len(keys), COLUMNS):
        part = keys[start : start + COLUMNS]
        table = [["mean +- sd over seeds", *(titles[key] for key in part)]]
        for name in dict.fromkeys(line["metric"] for line in several):
            table.append([name, *(cells.get((*key, name), "-") for key in part)])
        text += [*_aligned(table), ""]
    return text


def _pairs(lines: Sequence[Line]) -> list[str]:
    """Return the paired tests of a few systems."""
    pairs = list(dict.fromkeys((line["first"], line["second"]) for line in lines))
    if not pairs or len(pairs) > MOST_PAIRS:
        return []
    text = []
    for first, second in pairs:
        heads = ["difference", "95 % interval", "p (bootstrap)", "p (t-test per image)"]
        table = [[f"{first} - {second}", *heads]]
        for line in lines:
            if (line["first"], line["second"]) == (first, second):
                interval = f"[{line['low']:+.3f}, {line['high']:+.3f}]"
                numbers = [f"{line[key]:.4f}" for key in ("p_bootstrap", "p_t_test")]
                table.append([line["metric"], f"{line['difference']:+.3f}", interval, *numbers])
        text += [*_aligned(table), ""]
    return text


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [
                first.ljust(widths[0]),
                *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True)),
            ]
        )
        for first, *others in table
    ]


def _cell(row: Row, name: str) -> str:
    measure = row.measures.get(name)
    if measure is None:
        return "-"
    if not is_computed(measure):
        return NOT_COMPUTED
    chance = "" if measure.chance is None else f" (chance {measure.chance:.3f})"
    return f"{measure.value:.3f}{chance}"
