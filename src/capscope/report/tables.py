"""All tables of the report: captions, stages, explanations, and published values beside ours."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from capscope.report.explanations import explanation_tables
from capscope.report.object_words import is_of_words, object_word_tables, signature_of
from capscope.report.published import NOT_COMPUTED, NOT_RUN, published_tables
from capscope.report.results import Results
from capscope.report.stages import stage_tables
from capscope.report.table import Table

COMPARED = ("METEOR", "CIDEr", "SPICE", "object_f1", "CHAIR-i", "word_precision@10")
"""Metrics whose differences between systems are shown; the file has all."""


def all_tables(results: Results) -> list[Table]:
    """Return every table for which there are results; published values first if we have such."""
    captions = [*_captions(results), *_seeds(results), *object_word_tables(results)]
    compared = [*_comparisons(results), *stage_tables(results)]
    ours = [*captions, *compared, *explanation_tables(results)]
    papers = published_tables(results)
    known = any(set(table.cells["ours"]) - {NOT_RUN} for table in papers)
    return [*papers, *ours] if known else [*ours, *papers]


def _captions(results: Results) -> list[Table]:
    tables = []
    scores = results.captions[~results.captions["metric"].map(is_of_words).astype(bool)]
    for split, rows in scores.groupby("split", sort=False):
        metrics = list(dict.fromkeys(rows["metric"]))
        signed = "signature" in rows and bool(rows["signature"].notna().any())
        lines = []
        for key, group in rows.groupby(["system", "stage", "seed"], sort=False, dropna=False):
            values = group.set_index("metric")
            human = key[0] == "human"
            name = "human, leave-one-out" if human else f"{key[0]} {key[1]} (seed {key[2]})"
            cells = {m: _score(values.loc[m]) if m in values.index else "-" for m in metrics}
            signature = {"signature": group["signature"].iloc[0]} if signed else {}
            lines.append({"system": name, **signature, **cells})
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


def _seeds(results: Results) -> Iterator[Table]:
    """Yield for each split the mean and spread of systems with several seeds."""
    several = results.seeds[results.seeds["seeds"] > 1]
    several = several[~several["metric"].map(is_of_words).astype(bool)]
    for split, rows in several.groupby("split", sort=False):
        lines = []
        signed = bool(rows["signature"].notna().any())
        for (system, stage), group in rows.groupby(["system", "stage"], sort=False):
            values = group.set_index("metric")
            cells = {str(m): f"{v['mean']:.3f} ± {v['sd']:.3f}" for m, v in values.iterrows()}
            line = {"system": f"{system} {stage}", "seeds": str(max(group["seeds"]))}
            if signed:
                line["signature"] = "-"
            lines.append(line | signature_of(group) | cells)
        note = "Mean and standard deviation over seeds: what training anew changes."
        frame = pd.DataFrame(lines).fillna("-")
        yield Table(f"seeds_{split}", f"Captions over seeds, {split}", note, frame)


def _comparisons(results: Results) -> Iterator[Table]:
    """Yield for each split the differences between systems, tested on the same images."""
    shown = results.comparisons[results.comparisons["metric"].isin(COMPARED)]
    for split, rows in shown.groupby("split", sort=False):
        lines = []
        for (first, second), group in rows.groupby(["first", "second"], sort=False):
            cells = {row["metric"]: _difference(row) for row in group.to_dict("records")}
            lines.append({"systems": f"{first} - {second}", **cells})
        note = (
            "Difference of the means over seeds, [95 % interval] and p-value of the paired "
            "bootstrap over images | p-value of the paired t-test of scores per image. All metrics "
            "are in scores/comparisons.csv. Of pairs of equal systems, 1 in 20 is below 0.05."
        )
        frame = pd.DataFrame(lines).fillna("-")
        yield Table(f"comparisons_{split}", f"Systems compared, {split}", note, frame)


def _difference(row: Mapping[Hashable, Any]) -> str:
    """Return such as ``+0.120 [+0.080, +0.160], p 0.002 | 0.001``."""
    low, high = f"{row['low']:+.3f}", f"{row['high']:+.3f}"
    p_values = f"{row['p_bootstrap']:.3f} | {row['p_t_test']:.3f}"
    return f"{row['difference']:+.3f} [{low}, {high}], p {p_values}".replace("nan", "-")


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
