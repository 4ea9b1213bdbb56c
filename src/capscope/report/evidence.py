"""The numbers that the answers of the report are made of, looked up in matrix and tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from capscope.report.matrix import matrix, paired_tests
from capscope.report.results import Results
from capscope.report.run_time import run_times

SIGNIFICANT = 0.05


class Column(NamedTuple):
    """A column of the matrix."""

    benchmark: str
    resolution: str
    word_kind: str
    measure: str


class Lead(NamedTuple):
    """By how much one side of a paired test is ahead."""

    difference: float
    low: float
    high: float
    p: float
    """Of the paired t-test: few tests are asked for by name here, so that it is not corrected for
    the many that the matrix holds besides."""

    @property
    def is_ahead(self) -> bool:
        """Whether the lead is more than chance."""
        return self.difference > 0 and self.p < SIGNIFICANT

    def __str__(self) -> str:
        return change(self.difference, self.low, self.high, self.p)


@dataclass(frozen=True)
class Evidence:
    """What the answers draw on, for one split."""

    results: Results
    split: str
    """test, or the first split that was explained."""
    matrix: pd.DataFrame
    """Of all splits."""
    tests: pd.DataFrame
    times: pd.DataFrame

    @classmethod
    def of(cls, results: Results) -> Evidence:
        """Collect the evidence of all runs."""
        every = matrix(results)
        splits = list(dict.fromkeys(every["split"])) if len(every) else ["test"]
        split = "test" if "test" in splits else splits[0]
        return cls(results, split, every, paired_tests(results), run_times(results))

    def was_measured(self, benchmark: str) -> bool:
        """Whether a benchmark was run, though it may have found nothing to measure."""
        return any(benchmark in run.benchmarks for run in self.results.runs)

    @cached_property
    def captioners(self) -> dict[str, str]:
        """Architectures by run: system and stage."""
        return {f"{run.system} {run.stage}": run.captioner for run in self.results.runs}

    def title(self, explainer: str) -> str:
        """Return what tables call an explainer."""
        return self.results.titles.get(explainer, explainer)

    def values(self, column: Column, *, controls: bool = False) -> pd.DataFrame:
        """Return means over seeds: a row per run, a column per explainer (or control)."""
        if self.matrix.empty:
            return pd.DataFrame()
        rows = self.matrix[self.matrix["split"] == self.split]
        for name, wanted in column._asdict().items():
            rows = rows[rows[name] == wanted]
        rows = rows[(rows["control"] == controls) & rows["value"].notna()]
        rows = rows.assign(run=rows["system"] + " " + rows["stage"])
        return rows.pivot_table(index="run", columns="explainer", values="value", sort=False)

    def lead(
        self, column: Column, first: str, second: str, same: str, *, compared: str = "explainers"
    ) -> Lead | None:
        """Return the paired test of `first` against `second`, or None if there is none."""
        if self.tests.empty:
            return None
        rows = self.tests[
            (self.tests["split"] == self.split)
            & (self.tests["compared"] == compared)
            & (self.tests["same"] == same)
        ]
        for name, wanted in column._asdict().items():
            rows = rows[rows[name] == wanted]
        for sign, (left, right) in ((1, (first, second)), (-1, (second, first))):
            found = rows[(rows["first"] == left) & (rows["second"] == right)]
            if len(found):
                row = found.iloc[0]
                low, high = sorted((sign * row["low"], sign * row["high"]))
                p = float(row["p_bootstrap"] if pd.isna(row["p_t_test"]) else row["p_t_test"])
                return Lead(sign * float(row["difference"]), low, high, p)
        return None

    @cached_property
    def cost(self) -> pd.Series:
        """CPU milliseconds per word by explainer, the mean over runs; empty if not timed."""
        if self.times.empty:
            return pd.Series(dtype=float)
        timed = self.times.dropna(subset=["cpu_ms_per_word"])
        return timed.groupby("explainer")["cpu_ms_per_word"].mean()


def percent(share: float) -> str:
    """Return such as ``87 %``."""
    return f"{100 * share:.0f} %"


def p_value(p: float) -> str:
    """Return such as ``p 0.012`` or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def change(difference: float, low: float, high: float, p: float) -> str:
    """Return such as ``+0.120 [+0.080, +0.160], p 0.002``."""
    first, second, third = (f"{round(x, 3) + 0.0:+.3f}" for x in (difference, low, high))
    return f"{first} [{second}, {third}], {p_value(p)}"
