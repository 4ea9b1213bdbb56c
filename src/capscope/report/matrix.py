"""The matrix: captioners x stages x explainers x benchmarks, and paired tests of its cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capscope.metrics.comparison import compare_pairs
from capscope.metrics.statistics import ratio, resample
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
    tables = []
    for key, group in sums.groupby(["split", *KEYS], sort=False):
        sides = [("explainers", "run", "explainer", group)]
        if key[1:] in ACROSS:
            shown = group[~group["explainer"].isin(results.controls)]
            sides.append(("captioners", "explainer", "run", shown))
        for compared, by, side, rows in sides:
            for same, part in rows.groupby(by, sort=False):
                if part[side].nunique() < 2:
                    continue
                named = {n: str(v) for n, v in zip(["split", *KEYS], key, strict=True)}
                named |= {"compared": compared, "same": str(same)}
                tables.append(_tests(part, side, resamples, seed).assign(**named))
    if not tables:
        return pd.DataFrame()
    found = pd.concat(tables, ignore_index=True)
    first = ["dataset", "split", *KEYS, "compared", "same", "first", "second"]
    found["dataset"] = results.dataset
    return found[[*first, *(name for name in found.columns if name not in first)]]


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


def _tests(rows: pd.DataFrame, side: str, resamples: int, seed: int) -> pd.DataFrame:
    """Return the comparisons of all pairs of one column of `rows` on the images of them all."""
    places, names = pd.factorize(rows[side])
    images, ids = pd.factorize(rows["image_id"])
    parts, wholes = np.zeros((2, len(names), len(ids)))
    parts[places, images] = rows["part"]
    wholes[places, images] = rows["whole"]
    measures = [ratio(part, whole) for part, whole in zip(parts, wholes, strict=True)]
    first, second = np.triu_indices(len(names), 1)
    drawn = resample(measures, resamples=resamples, seed=seed)
    found = compare_pairs(measures, drawn, first, second)
    return pd.DataFrame(
        {
            "first": names[first],
            "second": names[second],
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p_bootstrap": found.p_bootstrap,
            "t": found.t,
            "p_t_test": found.p_t_test,
            "p_holm": holm(found.p_t_test),
            "images": found.images,
        }
    )


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Return p-values corrected for their number, step by step (Holm 1979); NaN stays NaN."""
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in corrected]
