"""Tables of the benchmarks of explanations: one for each, and one of all side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from capscope.report.matrix import KEYS, matrix
from capscope.report.results import Results, RunResults
from capscope.report.table import Table, with_interval

KINDS = ("noun", "colour", "size", "relation", "verb", "place")
"""Kinds of words with a truth; nouns and colours are the headline."""


class Shown(NamedTuple):
    """How a benchmark is laid out."""

    title: str
    note: str
    measures: tuple[str, ...] = ()
    """Columns; all measures if there are none here. The CSV of the run has all."""


SHOWN = {
    "ground_truth": Shown(
        "Explanations against the truth",
        "Hit: the strongest point lies on what the word is about; mass: share of positive "
        "relevance there; rank: share of the strongest points there, as many as it covers; choice: "
        "the named object gets the most. Pooled: the maps at the pixels, summed over the cells of "
        "the grid. Compare within one resolution only. 95 % intervals over images.",
    ),
    "correctness": Shown(
        "Correctness of explanations",
        "Share of the relevance above a threshold that lies in a box of the named category: the "
        "mean over thresholds from 0 to 0.9 of the maximum, and single ones. Negative: that of the "
        "relevance against the word.",
        ("correctness", "correctness 0.0", "correctness 0.5", "correctness 0.9", "negative"),
    ),
    "removal": Shown(
        "Explanations against removal",
        "The scene is drawn again without one object; the causal object is the one whose removal "
        "costs the word most. Agreement: the explainer gives it the most relevance.",
    ),
    "deletion": Shown(
        "Deletion and insertion",
        "Area under the probability of a word when the most relevant parts go first (deletion, low "
        "is good) or come first (insertion, high is good). Intact and empty: the probability with "
        "all parts and with none.",
        ("deletion", "insertion", "intact", "empty"),
    ),
    "ablation": Shown(
        "Ablation as published",
        "What a word loses in probability with the most relevant preceding words or patches, and "
        "how often it loses any.",
    ),
    "latent_ablation": Shown(
        "Ablation in latent space",
        "Log-probability that a noun loses without the features an explainer ranks first (drop), "
        "how often it loses any (drops), and how often a new caption lacks it (missing). Compare "
        "with random.",
    ),
    "latent_correlation": Shown(
        "Rank correlation in latent space",
        "Of the relevance of visual features with the share of them that shows what a noun is "
        "about (truth), and with the detector's confidence. Score and distance: as published.",
    ),
    "latent_objects": Shown(
        "Relevance of objects",
        "Visual features that the detector gave one class, that overlap, or that one mask covers "
        "are an object. Choice: an object that the noun (the caption) names gets the most "
        "relevance; share: of the positive relevance, what named objects get.",
    ),
    "components": Shown(
        "Noise in components of the captioner",
        "Captions under Gaussian noise in the visual features (VF), the word embedding (WE), the "
        "hidden state (HT) or the context (CT), sigma in standard deviations of the component: "
        "scored against the references, and against the caption without noise (same).",
        ("CIDEr", "same CIDEr sigma 1", "changed sigma 1", "CIDEr sigma 1"),
    ),
    "hallucination": Shown(
        "True against hallucinated object words",
        "Area under the ROC curve: the chance that a true word has the higher value of a statistic "
        "of its map; one half is chance. The captioner's own probability is beside it, and the "
        "share of words that are hallucinated: with few, the intervals are wide.",
        (
            "mean",
            "mean_abs",
            "mean_pos",
            "max",
            "quantile 0.5",
            "image share",
            "probability",
            "1 - beta",
            "hallucinated",
        ),
    ),
    "randomisation": Shown(
        "Randomisation",
        "Rank correlation of a noun's map with that of a captioner with new weights, and with that "
        "of another noun. Low is good, but noise is low, too.",
    ),
    "contribution": Shown(
        "Sources of words",
        "Shares of a word's relevance: of vision, of segments in it, of preceding words, and of "
        "what each layer of a transformer's decoder sends to the image; entropy of the map in "
        "nats. They say what a captioner goes by, not which explainer is better.",
    ),
    "conservation": Shown(
        "Conservation of relevance",
        "Error: relevance lost or gained between two places, relative to what was handed down. "
        "Rules with biases and stabilisers do not conserve exactly.",
    ),
}
"""Title, note and columns of each benchmark's tables."""


class Column(NamedTuple):
    """One column of the overview."""

    heading: str
    benchmark: str
    resolution: str
    word_kind: str
    measure: str
    direction: str
    definition: str


OVERVIEW = (
    Column("hit", "ground_truth", "pixels", "noun", "hit", "higher", "pointing game"),
    Column("mass", "ground_truth", "pixels", "noun", "mass", "higher", "mass accuracy"),
    Column("rank", "ground_truth", "pixels", "noun", "rank", "higher", "rank accuracy"),
    Column(
        "correctness",
        "correctness",
        "pixels",
        "noun",
        "correctness",
        "higher",
        "relevance in the boxes of the category, mean over thresholds",
    ),
    Column(
        "cause", "removal", "pixels", "noun", "agreement", "higher", "most relevance on the cause"
    ),
    Column(
        "deletion",
        "deletion",
        "grid",
        "noun",
        "deletion",
        "lower",
        "area when features are deleted",
    ),
    Column(
        "insertion",
        "deletion",
        "grid",
        "noun",
        "insertion",
        "higher",
        "area when features are inserted",
    ),
    Column(
        "word drop",
        "ablation",
        "words",
        "object word",
        "drop",
        "higher",
        "probability lost with the most relevant preceding words",
    ),
    Column(
        "vanished",
        "ablation",
        "pixels",
        "object word",
        "disappeared",
        "higher",
        "share of object words that a new caption lacks without the most relevant patches",
    ),
    Column(
        "latent drop",
        "latent_ablation",
        "grid",
        "noun",
        "drop vf_3_min",
        "higher",
        "log-probability lost without the three most relevant features",
    ),
    Column(
        "truth rank",
        "latent_correlation",
        "grid",
        "noun",
        "spearman truth",
        "higher",
        "rank correlation over features with what shows the noun",
    ),
    Column(
        "object",
        "latent_objects",
        "grid",
        "noun",
        "choice mask",
        "higher",
        "the object that the noun names gets the most relevance of its features",
    ),
    Column(
        "hallucination",
        "hallucination",
        "pixels",
        "noun",
        "mean",
        "higher",
        "area under the ROC curve of the mean relevance, true against hallucinated nouns",
    ),
    Column(
        "random weights",
        "randomisation",
        "grid",
        "noun",
        "random weights",
        "lower",
        "rank correlation with the map of a captioner with random weights",
    ),
    Column(
        "another noun",
        "randomisation",
        "grid",
        "noun",
        "another noun",
        "lower",
        "rank correlation with the map of another noun of the caption",
    ),
    Column(
        "vision",
        "contribution",
        "grid",
        "all",
        "vision",
        "higher",
        "share of the image in the relevance of words",
    ),
    Column(
        "error",
        "conservation",
        "grid",
        "all",
        "error",
        "lower",
        "relevance lost or gained on the way to the visual features",
    ),
)
"""What the overview shows of each benchmark, at the resolution that compares explainers."""


def explanation_tables(results: Results) -> list[Table]:
    """Return the matrix of each split, and the tables of each run and benchmark."""
    tables = list(_overviews(results))
    for run in results.runs:
        for name in SHOWN:
            if name in run.benchmarks and len(run.benchmarks[name]):
                tables += _benchmark(results, run, name)
    return tables


def _overviews(results: Results) -> Iterator[Table]:
    """Yield for each split one table of captioners x explainers x benchmarks."""
    every = matrix(results)
    if every.empty:
        return
    for split, of_split in every.groupby("split", sort=False):
        indexed = of_split.set_index(KEYS).sort_index()
        columns = [column for column in OVERVIEW if column[1:5] in indexed.index]
        headings = {column[1:5]: column.heading for column in columns}
        rows: dict[tuple[Any, ...], dict[str, str]] = {}
        for row in of_split.to_dict("records"):
            heading = headings.get(tuple(row[key] for key in KEYS))
            if heading:
                name = str(row["explainer"])
                of_run = (row["system"], row["stage"], row["seed"])
                line = {
                    "captioner": f"{of_run[0]} {of_run[1]} (seed {of_run[2]})",
                    "explainer": results.titles.get(name, name),
                }
                line |= dict.fromkeys(headings.values(), "-")
                rows.setdefault((*of_run, name), line)[heading] = with_interval(row)
        lines = list(rows.values())
        if lines:
            yield Table(
                f"matrix_{split}",
                f"All explanations, {split}",
                "A row per captioner and explainer, with 95 % intervals over images; "
                "docs/benchmarks.md says what the columns measure. matrix.csv has all measures.",
                pd.DataFrame(lines),
                {
                    c.heading: f"{c.definition} ({c.resolution}); {c.direction} is better"
                    for c in columns
                },
            )


def _benchmark(results: Results, run: RunResults, name: str) -> Iterator[Table]:
    """Yield a table for each split of a benchmark."""
    shown, rows = SHOWN[name], run.benchmarks[name]
    columns = _headline_first(rows) if name == "ground_truth" else _columns(rows, shown.measures)
    for split, of_split in rows.groupby("split", sort=False):
        cells = _pivot(results, of_split, columns)
        title = f"{shown.title}, {split}"
        if len(results.runs) > 1:
            title += f": {run.title}"
        file = _name(results, run, f"{name}_{split}")
        yield Table(file, title, shown.note, cells, run=run.name)


def _headline_first(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return all measures of nouns and colours, and hits of the other kinds of words."""
    present = set(rows["word_kind"])
    kinds = [kind for kind in KINDS if kind in present]
    kinds += sorted(present - set(kinds))
    measures = [m for m in ("hit", "mass", "rank", "choice") if m in set(rows["measure"])]
    columns = [(kind, measure) for kind in kinds[:2] for measure in measures]
    return columns + [(kind, "hit") for kind in kinds[2:]]


def _columns(rows: pd.DataFrame, measures: Sequence[str]) -> list[tuple[str, str]]:
    found = dict.fromkeys(zip(rows["word_kind"], rows["measure"], strict=True))
    return [pair for pair in found if not measures or pair[1] in measures]


def _pivot(results: Results, rows: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return a row per explainer and resolution, a column per kind of word and measure."""
    single = len({kind for kind, _ in pairs}) == 1
    headings = {
        (kind, measure): measure if single or kind == "all" else f"{kind} {measure}"
        for kind, measure in pairs
    }
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows.to_dict("records"):
        key = resolution, explainer = str(row["resolution"]), str(row["explainer"])
        line = lines.get(key)
        if line is None:
            title = results.titles.get(explainer, explainer)
            line = {"resolution": resolution, "explainer": title}
            lines[key] = line = line | dict.fromkeys(headings.values(), "-")
        heading = headings.get((row["word_kind"], row["measure"]))
        if heading:
            line[heading] = with_interval(row)
    in_order = sorted(lines.values(), key=lambda line: line["resolution"])
    return pd.DataFrame(in_order)


def _name(results: Results, run: RunResults, table: str) -> str:
    single = len(results.runs) == 1
    return table if single else f"{run.name}_{table}"
