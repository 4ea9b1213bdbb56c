"""Tables of frequent object words: a row per run and list of words.

In columns, every list would make the table of all scores three columns wider.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from capscope.report.results import Results
from capscope.report.table import Table

WORDS = ("word_precision", "word_recall", "word_f1")
"""Means over frequent object words; ``@k`` after them is how many of the most frequent ones."""
_HEADINGS = dict(zip(WORDS, ("precision", "recall", "F1"), strict=True))
_THE_WORDS = "; the words: "


def is_of_words(metric: str) -> bool:
    """Return whether a metric is a mean over frequent object words."""
    return metric.partition("@")[0] in WORDS


def object_word_tables(results: Results) -> Iterator[Table]:
    """Yield a table for each split in which such words were scored."""
    scores = results.captions[results.captions["metric"].map(is_of_words).astype(bool)]
    several = results.seeds[results.seeds["seeds"] > 1]
    for split, rows in scores.groupby("split", sort=False):
        lines: list[dict[str, str]] = []
        for words in sorted({_list(metric) for metric in rows["metric"]}, key=_place):
            lines += _lines(rows[rows["metric"].map(_list) == words], words)
            spread = several[several["split"] == split]
            lines += _spreads(spread[spread["metric"].isin(_names(words))], words)
        yield Table(
            f"object_words_{split}",
            f"Object words, {split}",
            "Whether captions use frequent object words where some reference does; means over the "
            "words. Over several seeds: mean ± standard deviation.",
            _signature_first(pd.DataFrame(lines)).fillna("-"),
            _definitions(rows),
        )


def signature_of(rows: pd.DataFrame) -> dict[str, str]:
    """Return what scores depend on beyond the captioner as a cell, if it is anything."""
    signature = rows["signature"].iloc[0] if "signature" in rows else None
    return {"signature": str(signature)} if pd.notna(signature) else {}


def _lines(rows: pd.DataFrame, words: str) -> Iterator[dict[str, str]]:
    """Yield the scores of each run on one list of words."""
    for key, group in rows.groupby(["system", "stage", "seed"], sort=False, dropna=False):
        human = key[0] == "human"
        name = "human, leave-one-out" if human else f"{key[0]} {key[1]} (seed {key[2]})"
        values = dict(zip(group["metric"], group["value"], strict=True))
        cells = {m: f"{value:.3f}".replace("nan", "-") for m, value in values.items()}
        yield {"words": words, "system": name, **signature_of(group)} | _under_headings(cells)


def _spreads(rows: pd.DataFrame, words: str) -> Iterator[dict[str, str]]:
    """Yield mean and spread of each system with several seeds on one list of words."""
    for (system, stage), group in rows.groupby(["system", "stage"], sort=False):
        name = f"{system} {stage} ({max(group['seeds'])} seeds)"
        values = group.set_index("metric")
        cells = {str(m): f"{v['mean']:.3f} ± {v['sd']:.3f}" for m, v in values.iterrows()}
        yield {"words": words, "system": name, **signature_of(group)} | _under_headings(cells)


def _signature_first(cells: pd.DataFrame) -> pd.DataFrame:
    """Put the column of signatures, if there is one, behind the systems."""
    first = [name for name in ("words", "system", "signature") if name in cells]
    return cells[[*first, *(name for name in cells if name not in first)]]


def _under_headings(cells: dict[str, str]) -> dict[str, str]:
    return {_HEADINGS[metric.partition("@")[0]]: text for metric, text in cells.items()}


def _list(metric: str) -> str:
    """Return what a metric's list of words is called."""
    cutoff = metric.partition("@")[2]
    return f"{cutoff} most frequent" if cutoff else "published list"


def _place(words: str) -> int:
    return int(words.split()[0]) if words[0].isdigit() else 0


def _names(words: str) -> list[str]:
    cutoff = _place(words)
    return [f"{name}@{cutoff}" if cutoff else name for name in WORDS]


def _definitions(rows: pd.DataFrame) -> dict[str, str]:
    """Return what each column is, and each list's words, once."""
    columns, lists = {}, {}
    for metric, definition in zip(rows["metric"], rows["definition"], strict=True):
        meaning, _, words = definition.partition(_THE_WORDS)
        columns[_HEADINGS[metric.partition("@")[0]]] = meaning
        if words:
            lists[_list(metric)] = words
    return columns | lists
