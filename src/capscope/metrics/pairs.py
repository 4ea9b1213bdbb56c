"""Single runs against each other, image by image: what the comparison page shows.

`capscope.metrics.tables` compares systems, means over their seeds. Here every run stands for
itself, and nothing is needed but the tables that were written of its scores.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from capscope.errors import CapscopeError
from capscope.metrics.comparison import paired_t_test
from capscope.metrics.registry import METRICS, in_order, metric
from capscope.metrics.rows import HUMAN, NO_SEED
from capscope.metrics.statistics import Scores
from capscope.metrics.tables import CAPTIONS_TABLE, IMAGES_TABLE, Line

Run = tuple[str, str, str]
"""System, stage and seed."""


@dataclass(frozen=True)
class ScoredRun:
    """The captions of one run for the images of a split, and their scores.

    Attributes
    ----------
    title : str
    captions : tuple of str
    overall : mapping of str to float
        Each metric over all images; NaN where it is undefined.
    scores : mapping of str to ndarray (N,)
        Each metric of each image; NaN where it is undefined.
    """

    title: str
    captions: tuple[str, ...]
    overall: Mapping[str, float]
    scores: Mapping[str, Scores]


@dataclass(frozen=True)
class SplitScores:
    """Runs on the same images.

    Attributes
    ----------
    split : str
    image_ids : tuple of int, length N
    runs : tuple of ScoredRun
    human : mapping of str to float
        What references score against the other references of their image, where it is known.
    """

    split: str
    image_ids: tuple[int, ...]
    runs: tuple[ScoredRun, ...]
    human: Mapping[str, float]

    @property
    def metrics(self) -> list[str]:
        """The metrics that every run has, in the order of the registry."""
        return in_order(set.intersection(*(set(run.scores) for run in self.runs)))

    def pairs(self) -> list[tuple[ScoredRun, ScoredRun, list[Line]]]:
        """Return each pair of runs with the lines of `compared`."""
        return [
            (first, second, compared(first, second, self.metrics))
            for first, second in combinations(self.runs, 2)
        ]


def compared(first: ScoredRun, second: ScoredRun, metrics: Sequence[str]) -> list[Line]:
    """Compare two runs, a line for each metric.

    Returns
    -------
    list of dict
        ``metric``; ``first`` and ``second``: scores over all images; ``first_mean`` and
        ``second_mean`` of the scores of single images, ``difference`` of these means, ``t`` and
        ``p`` of their paired, two-sided t-test, and ``images``: those where both are defined.
    """
    lines = []
    for name in metrics:
        ours, theirs = first.scores[name], second.scores[name]
        both = ~np.isnan(ours - theirs)
        means = [float(one[both].mean()) if both.any() else math.nan for one in (ours, theirs)]
        t, p, images = paired_t_test(ours, theirs)
        lines.append(
            {
                "metric": name,
                "direction": metric(name).direction,
                "first": first.overall.get(name, math.nan),
                "second": second.overall.get(name, math.nan),
                "first_mean": means[0],
                "second_mean": means[1],
                "difference": means[0] - means[1],
                "t": t,
                "p": p,
                "images": images,
            }
        )
    return lines


def read_scores(folder: Path, runs: Sequence[Run] = ()) -> list[SplitScores]:
    """Read the scores of runs from the tables that ``capscope evaluate`` wrote, by splits.

    Parameters
    ----------
    folder : Path
        Holds ``captions.csv`` and ``per_image.csv``.
    runs : sequence of (system, stage, seed)
        Which runs, in this order; all by default.

    Raises
    ------
    CapscopeError
        Naming the file that is missing or no such table, or the run that has no scores.
    """
    return arrange(_lines(folder / CAPTIONS_TABLE), _lines(folder / IMAGES_TABLE), runs, folder)


def arrange(
    overall: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    runs: Sequence[Run],
    where: Path,
) -> list[SplitScores]:
    """Arrange lines of ``captions.csv`` and ``per_image.csv`` as runs on the images of a split."""
    found: dict[str, dict[Run, list[Mapping[str, Any]]]] = {}
    for line in images:
        found.setdefault(str(line["split"]), {}).setdefault(_run(line), []).append(line)
    values: dict[tuple[str, Run], dict[str, float]] = {}
    for line in overall:
        key = (str(line["split"]), _run(line))
        values.setdefault(key, {})[str(line["metric"])] = _number(line["value"])
    splits = []
    for split, of_split in found.items():
        human = next((key for key in of_split if key[0] == HUMAN and not key[2]), None)
        known = [key for key in of_split if key != human]
        for run in runs:
            if run not in known:
                raise CapscopeError(
                    f"{where} has no scores of the run {_title(run)} on the split {split}: give "
                    "it to `capscope evaluate` together with the others"
                )
        chosen = [_scored(run, of_split[run], values[split, run]) for run in runs or known]
        ids = {tuple(int(line["image_id"]) for line in of_split[run]) for run in runs or known}
        if len(ids) > 1:
            raise CapscopeError(f"{where}: the runs have captions of different images of {split}")
        if len(chosen) < 2:
            raise CapscopeError(f"{where} has {len(chosen)} run: a comparison needs two or more")
        reached = values[split, human] if human else {}
        splits.append(SplitScores(split, ids.pop(), tuple(chosen), reached))
    return splits


def _scored(
    run: Run, lines: Sequence[Mapping[str, Any]], overall: Mapping[str, float]
) -> ScoredRun:
    scores = {
        name: np.array([_number(line[name]) for line in lines])
        for name in lines[0]
        if name.partition("@")[0] in METRICS
    }
    scores = {name: column for name, column in scores.items() if not np.isnan(column).all()}
    return ScoredRun(_title(run), tuple(str(line["caption"]) for line in lines), overall, scores)


def _lines(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise CapscopeError(f"{path} does not exist: run `capscope evaluate` first") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CapscopeError(f"{path} is not a CSV table: {error}") from error
    needed = {"split", "system", "stage", "seed"}
    if not lines or not needed <= set(lines[0]):
        raise CapscopeError(f"{path} is not a table of scores; `capscope evaluate` writes them")
    return lines


def _run(line: Mapping[str, Any]) -> Run:
    return str(line["system"]), str(line["stage"]), str(line["seed"])


def _title(run: Run) -> str:
    system, stage, seed = run
    return " ".join(filter(None, [system, stage, "" if seed in ("", NO_SEED) else f"seed {seed}"]))


def _number(value: Any) -> float:
    return math.nan if value in ("", None) else float(value)
