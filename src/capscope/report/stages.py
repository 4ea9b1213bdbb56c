"""Does LRP fine-tuning make frequent object words more precise while sentence metrics stay?

The claim of Sun et al. (2022), put to the test: every fine-tuned stage beside the stage that it
fine-tunes without relevance, on the same images, over all seeds. The comparisons are those of
``scores/comparisons.csv``: the difference of the means over seeds with a bootstrap interval over
images, and the p-values of the paired bootstrap and of the paired t-test on scores per image.

A fine-tuned captioner has also been trained for longer. The fair control is a second system that
fine-tunes with ``weight: 0``, which is all but the relevance; give it the same seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from capscope.report.object_words import is_of_words
from capscope.report.results import Results
from capscope.report.table import Table

PAIRS = (("xe", "lrp_xe"), ("scst", "lrp_scst"))
OBJECTS = ("object_precision", "object_recall", "CHAIR-i", "CHAIR-s")
SENTENCES = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "SPICE")


def stage_tables(results: Results) -> Iterator[Table]:
    """Yield for each split what LRP fine-tuning changed; nothing without such stages."""
    if results.comparisons.empty:
        return
    for split in results.comparisons["split"].unique():
        found = changes(results, str(split))
        if found:
            yield Table(
                f"stages_{split}",
                f"LRP fine-tuning, {split}",
                "Means over seeds; the difference has a 95 % bootstrap interval over images. "
                "p: paired bootstrap and paired t-test, two-sided, not corrected for the number "
                "of metrics. A fine-tuned captioner was also trained for longer.",
                pd.DataFrame([_cells(line) for line in found]),
                tidy=pd.DataFrame(found),
            )


def changes(results: Results, split: str) -> list[dict[str, Any]]:
    """Return what LRP fine-tuning changed on a split: a line for each system, stage and metric."""
    if results.comparisons.empty:
        return []
    rows = results.comparisons[results.comparisons["split"] == split]
    return [
        line
        for system in dict.fromkeys(run.system for run in results.runs)
        for before, after in PAIRS
        for line in _lines(results, rows, split, system, before, after)
    ]


def _lines(
    results: Results, rows: pd.DataFrame, split: str, system: str, before: str, after: str
) -> Iterator[dict[str, Any]]:
    """Yield one line per metric of a pair of stages of a system."""
    names = {f"{system} {before}": -1.0, f"{system} {after}": 1.0}
    pair = rows[rows["first"].isin(names) & rows["second"].isin(names)]
    scores = results.captions
    scores = scores[(scores["split"] == split) & (scores["system"] == system)]
    for metric in _in_order(list(pair["metric"])):
        row = pair[pair["metric"] == metric].iloc[0]
        of_metric = scores[scores["metric"] == metric]
        by_stage = {
            stage: of_metric[of_metric["stage"] == stage].set_index("seed")["value"]
            for stage in (before, after)
        }
        sign = names[row["first"]]
        change = (by_stage[after] - by_stage[before]).dropna()
        low, high = sorted((sign * row["low"], sign * row["high"]))
        better = (change < 0) if row["direction"] == "lower" else (change > 0)
        yield {
            "system": system,
            "before": before,
            "after": after,
            "metric": metric,
            "value_before": by_stage[before].mean(),
            "value_after": by_stage[after].mean(),
            "difference": sign * row["difference"],
            "low": low,
            "high": high,
            "p_bootstrap": row["p_bootstrap"],
            "p_t_test": row["p_t_test"],
            "better_seeds": int(better.sum()),
            "seeds": len(change),
            "direction": row["direction"],
        }


def _in_order(metrics: list[str]) -> list[str]:
    """Return word metrics by cut-off, then objects, then sentences; others are left out."""
    words = [name for name in metrics if is_of_words(name)]
    words.sort(key=lambda name: int(name.partition("@")[2] or 0))
    return [*words, *(name for name in (*OBJECTS, *SENTENCES) if name in metrics)]


def _cells(line: dict[str, Any]) -> dict[str, str]:
    return {
        "system": line["system"],
        "stages": f"{line['before']} to {line['after']}",
        "metric": line["metric"],
        "before": f"{line['value_before']:.3f}",
        "after": f"{line['value_after']:.3f}",
        "difference": f"{line['difference']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]",
        "p bootstrap": f"{line['p_bootstrap']:.3f}",
        "p t-test": "-" if pd.isna(line["p_t_test"]) else f"{line['p_t_test']:.3f}",
        "better in seeds": f"{line['better_seeds']} of {line['seeds']}",
    }
