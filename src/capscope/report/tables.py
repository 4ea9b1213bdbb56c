"""Result tables: one row per system or explainer, rendered as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from capscope.files import write_text
from capscope.report.results import Results, RunResults

NOT_AVAILABLE = "not available"
NOT_RUN = "not run"
NOT_COMPUTED = "not computed"
"""Stands in the definition of a metric whose model was missing, before what to do about it."""
KINDS = ("noun", "colour", "size", "relation", "verb", "place")
"""Kinds of words with a truth; nouns and colours are the headline."""
BENCHMARK_TEXTS = {
    "ground_truth": (
        "Explanations against the truth",
        "Hit: the strongest point lies on what the word is about; mass: share of positive "
        "relevance there; choice: the named object gets the most. Compare within one "
        "resolution only. 95 % intervals over images.",
    ),
    "removal": (
        "Explanations against removal",
        "The scene is drawn again without one object; the causal object is the one whose removal "
        "costs the word most. Agreement: the explainer gives it the most relevance.",
    ),
    "conservation": (
        "Conservation of relevance",
        "Error: relevance lost or gained between two places, relative to what was handed down. "
        "Rules with biases and stabilisers do not conserve exactly.",
    ),
}
"""Title and note of each benchmark's tables."""


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


def all_tables(results: Results) -> list[Table]:
    """Return every table for which there are results."""
    tables = _captions(results)
    for run in results.runs:
        for name in BENCHMARK_TEXTS:
            if name in run.benchmarks and len(run.benchmarks[name]):
                tables += _benchmark(results, run, name)
    return [*tables, *_published(results)]


def write_table(table: Table, folder: Path) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.tex``."""
    write_text(folder / f"{table.name}.csv", table.cells.to_csv(index=False))
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
    """Return a value and its 95 % interval, such as ``0.86 [0.83, 0.89]``."""
    value, low, high = (f"{row[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if "nan" not in (low, high) else value


def _captions(results: Results) -> list[Table]:
    tables = []
    for split, rows in results.captions.groupby("split", sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        lines = []
        for key, group in rows.groupby(["system", "stage", "seed"], sort=False, dropna=False):
            values = group.set_index("metric")
            human = key[0] == "human"
            name = "human, leave-one-out" if human else f"{key[0]} {key[1]} (seed {key[2]})"
            cells = {m: _score(values.loc[m]) if m in values.index else "-" for m in metrics}
            lines.append({"system": name, **cells})
        chance = rows.dropna(subset=["chance"]).drop_duplicates("metric").set_index("metric")
        if len(chance):
            cells = {m: f"{chance['chance'][m]:.3f}" if m in chance.index else "" for m in metrics}
            lines.append({"system": "chance", **cells})
        captions = rows.query("system != 'human' and metric == 'CIDEr'")["count"].max()
        note = f"Split {split} of {results.dataset}, {int(captions)} images."
        note += "".join(f" {reason}." for reason in _reasons(rows))
        frame = pd.DataFrame(lines).fillna("")
        definitions = dict(zip(rows["metric"], rows["definition"], strict=True))
        tables.append(Table(f"captions_{split}", f"Captions, {split}", note, frame, definitions))
    return tables


def _score(row: pd.Series) -> str:
    """Return a score, a dash where it is undefined, or that it was not computed."""
    if pd.notna(row["value"]):
        return f"{row['value']:.3f}"
    return NOT_COMPUTED if NOT_COMPUTED in row["definition"] else "-"


def _reasons(rows: pd.DataFrame) -> list[str]:
    """Say what was not computed and why; metrics of one reason are named by the first of them."""
    reasons: dict[str, str] = {}
    for metric, definition in zip(rows["metric"], rows["definition"], strict=True):
        _, found, reason = definition.partition(NOT_COMPUTED)
        if found:
            reasons.setdefault(reason, metric)
    return [f"{metric} was {NOT_COMPUTED}{reason}" for reason, metric in reasons.items()]


def _published(results: Results) -> list[Table]:
    """Lay published values beside ours; ours exist only for the data set that was run."""
    if results.published.empty:
        return []
    ours = results.captions.query("system != 'human' and split == 'test'")
    lines = []
    keys = ["dataset", "system", "stage", "metric"]
    means = ours.groupby(keys)["value"].mean()
    for row in results.published.to_dict("records"):
        key = tuple(row[name] for name in keys)
        line = {name: row[name] for name in keys}
        line["paper"] = NOT_AVAILABLE if math.isnan(row["value"]) else f"{row['value']:g}"
        line["ours"] = NOT_RUN
        if key in means.index:
            line["ours"] = NOT_COMPUTED if math.isnan(means[key]) else f"{means[key]:.4f}"
        lines.append({**line, "source": row["source"]})
    note = "Ours are made in this run; a paper value that nobody has is not guessed."
    return [Table("published", "Paper against ours", note, pd.DataFrame(lines))]


def _benchmark(results: Results, run: RunResults, name: str) -> Iterator[Table]:
    """Yield a table for each split of a benchmark."""
    title, note = BENCHMARK_TEXTS[name]
    rows = run.benchmarks[name]
    columns = _headline_first(rows) if name == "ground_truth" else _all_columns(rows)
    for split, of_split in rows.groupby("split", sort=False):
        cells = _pivot(results, of_split, columns)
        yield Table(_name(results, run, f"{name}_{split}"), f"{title}, {split}", note, cells)


def _headline_first(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return all measures of nouns and colours, and hits of the other kinds of words."""
    present = set(rows["word_kind"])
    kinds = [kind for kind in KINDS if kind in present]
    kinds += sorted(present - set(kinds))
    columns = [(kind, measure) for kind in kinds[:2] for measure in ("hit", "mass", "choice")]
    return columns + [(kind, "hit") for kind in kinds[2:]]


def _all_columns(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(rows["word_kind"], rows["measure"], strict=True)))


def _pivot(results: Results, rows: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return a row per explainer and resolution, a column per kind of word and measure."""
    lines = []
    for key, group in rows.groupby(["resolution", "explainer"], sort=False):
        resolution, explainer = str(key[0]), str(key[1])
        values = {(row["word_kind"], row["measure"]): row for row in group.to_dict("records")}
        line = {"resolution": resolution, "explainer": results.titles.get(explainer, explainer)}
        for kind, measure in pairs:
            found = values.get((kind, measure))
            heading = measure if kind == "all" else f"{kind} {measure}"
            line[heading] = with_interval(found) if found else "-"
        lines.append(line)
    return pd.DataFrame(lines).sort_values("resolution", kind="stable", ignore_index=True)


def _name(results: Results, run: RunResults, table: str) -> str:
    single = len(results.runs) == 1
    return table if single else f"{run.system}_{run.stage}_seed{run.seed}_{table}"


def _escape(text: str) -> str:
    """Escape what LaTeX reads as a command in a caption."""
    return text.replace("\\", "").replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
