"""The matrix: captioners x stages x explainers x benchmarks, and paired tests of its cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from capscope.metrics.comparison import compare_drawn
from capscope.metrics.statistics import Measure, ratio, resample
from capscope.report.results import Results

KEYS = ["benchmark", "resolution", "word_kind", "measure"]
"""What a column of the matrix is."""
ACROSS = {
    ("contribution", "grid", "all", "vision"),
    ("ground_truth", "pixels", "noun", "hit"),
    ("ground_truth", "pooled", "noun", "hit"),
    ("removal", "pixels", "noun", "agreement"),
}
"""Measures by which captioners are compared; explainers are compared by all."""
RESAMPLES = 1000


def matrix(results: Results) -> pd.DataFrame:
    """Return every measurement of every explanation, one row each.

    Columns: dataset, system, captioner, stage, seed, split, benchmark, explainer, control (whether
    it should find nothing), resolution, word_kind, measure, value, low, high, n.
    """
    frames = [
        rows.assign(
            dataset=results.dataset,
            system=run.system,
            captioner=run.captioner,
            stage=run.stage,
            seed=run.seed,
            benchmark=name,
            control=rows["explainer"].isin(results.controls),
        )
        for run in results.runs
        for name, rows in run.benchmarks.items()
        if len(rows)
    ]
    if not frames:
        return pd.DataFrame()
    every = pd.concat(frames, ignore_index=True)
    first = ["dataset", "system", "captioner", "stage", "seed", "split", "benchmark"]
    first += ["explainer", "control", "resolution", "word_kind", "measure"]
    return every[[*first, *(name for name in every.columns if name not in first)]]


def paired_tests(results: Results, resamples: int = RESAMPLES, seed: int = 1) -> pd.DataFrame:
    """Compare explainers of a captioner, and captioners by an explainer, on the same images.

    Columns: dataset, split, benchmark, resolution, word_kind, measure, compared (explainers or
    captioners), same (what both sides share), first, second, difference (of the values in the
    matrix, seeds pooled), its 95 % interval low and high, p_bootstrap, t, p_t_test, p_holm,
    images.

    `p_holm` is the p-value of the t-test, corrected for all tests of one row of `same` and one
    column of the matrix (Holm 1979).
    """
    sums = _sums(results)
    if sums.empty:
        return pd.DataFrame()
    lines: list[dict[str, Any]] = []
    for key, group in sums.groupby(["split", *KEYS], sort=False):
        named = {"dataset": results.dataset} | dict(zip(["split", *KEYS], key, strict=True))
        for captioner, part in group.groupby("run", sort=False):
            head = named | {"compared": "explainers", "same": captioner}
            for line in _tests(part, "explainer", resamples, seed):
                lines.append(head | line)
        if key[1:] not in ACROSS:
            continue
        for explainer, part in group.groupby("explainer", sort=False):
            if explainer in results.controls:
                continue
            head = named | {"compared": "captioners", "same": explainer}
            for line in _tests(part, "run", resamples, seed):
                lines.append(head | line)
    return pd.DataFrame(lines)


def _sums(results: Results) -> pd.DataFrame:
    """Return what every run keeps of each image; `run` is system and stage, seeds are pooled."""
    frames = [
        rows.assign(run=f"{run.system} {run.stage}", benchmark=name)
        for run in results.runs
        for name, rows in run.details.items()
        if len(rows)
    ]
    if not frames:
        return pd.DataFrame()
    by = ["split", *KEYS, "run", "explainer", "image_id"]
    return pd.concat(frames).groupby(by, sort=False)[["part", "whole"]].sum().reset_index()


def _tests(rows: pd.DataFrame, side: str, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the comparisons of all pairs of one column of `rows` on the images of them all."""
    parts = rows.pivot_table(index="image_id", columns=side, values="part", sort=False)
    wholes = rows.pivot_table(index="image_id", columns=side, values="whole", sort=False)
    names = list(parts.columns)
    if len(names) < 2:
        return
    measures: list[Measure] = [
        ratio(parts[name].fillna(0).to_numpy(), wholes[name].fillna(0).to_numpy()) for name in names
    ]
    drawn = resample(measures, resamples=resamples, seed=seed)
    pairs = list(combinations(range(len(names)), 2))
    found = [compare_drawn(measures[i], measures[k], drawn[i], drawn[k]) for i, k in pairs]
    corrected = holm([one.p_t_test for one in found])
    for (i, k), one, p_holm in zip(pairs, found, corrected, strict=True):
        yield {
            "first": names[i],
            "second": names[k],
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
            "p_bootstrap": one.p_bootstrap,
            "t": one.t,
            "p_t_test": one.p_t_test,
            "p_holm": p_holm,
            "images": one.images,
        }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, step by step (Holm 1979); NaN stays NaN."""
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in corrected]
