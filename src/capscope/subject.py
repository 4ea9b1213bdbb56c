"""What a row of a table is of: which runs, which split, which benchmark.

Rows say it in columns (``system``, ``stage``, ``seed``, ``split``, ``benchmark``), in the name of a
run (``gridtd xe (seed 1)``, or ``gridtd xe`` for all its seeds), or by the name of their file
(``gridtd_xe_seed1_deletion_test.csv``). What is not said is meant as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

NAMING = ("systems", "captioner", "same", "first", "second", "run")
"""Columns that name runs where there is no column ``system``."""
STAGES = ("stage", "stages", "before", "after")
NOT_MEASURED = (
    *("captions", "object_words", "comparisons", "seeds", "stages"),
    *("published", "validation"),
)
"""Tables of a report that no benchmark goes into."""


class Run(NamedTuple):
    """Names of a run."""

    system: str
    stage: str
    seed: str


class Place(NamedTuple):
    """Where a product is in the results of a data set; None if not in such a place.

    Runs are in ``runs/<system>/<stage>/seed<seed>``; captions, maps and measures below them.
    """

    run: Run | None
    split: str | None
    benchmark: str | None

    @classmethod
    def of(cls, product: Path) -> Place:
        """Return the place of a product."""
        parts = product.parts
        if "runs" not in parts[:-3]:
            return cls(None, None, None)
        start = len(parts) - 1 - parts[::-1].index("runs")
        system, stage, seed, *inner = parts[start + 1 :]
        of_split = inner[:1] in (["decoded"], ["relevance"])
        return cls(
            Run(system, stage, seed.removeprefix("seed")),
            product.stem if of_split else None,
            product.stem if inner[:1] == ["benchmarks"] else None,
        )


@dataclass(frozen=True)
class Subject:
    """What a row is of; None stands for all."""

    runs: frozenset[Run] | None
    split: str | None
    benchmarks: frozenset[str] | None

    def includes(self, product: Path, made: Path) -> bool:
        """Say whether it is of a product, from which another was made.

        What belongs to no run is of everything. A run may be made of another: the one that it
        starts from.
        """
        run, split, benchmark = Place.of(product)
        chosen = run is None or self.runs is None or run in self.runs
        return (
            (chosen or Place.of(made).run is not None)
            and self.split in (None, split or self.split)
            and (benchmark is None or self.benchmarks is None or benchmark in self.benchmarks)
        )


def subject_of(
    table: str, row: Mapping[str, str], dataset: str, products: Iterable[Path]
) -> Subject:
    """Return what a row is of.

    Parameters
    ----------
    table : str
        Name of its file, without suffix.
    row : mapping of str to str
    dataset : str
        Whose results these are; rows of others (of published values) are of none of the runs.
    products : iterable of Path
        All of them.
    """
    places = [Place.of(product) for product in products]
    runs = {place.run for place in places if place.run}
    of_file = [run for run in runs if table.startswith(f"{'_'.join(run[:2])}_seed{run.seed}_")]
    if of_file:
        table = table.removeprefix(f"{'_'.join(of_file[0][:2])}_seed{of_file[0].seed}_")
    said = row.get("split") or table.rpartition("_")[2]
    split = said if said in {place.split for place in places} else None
    table = table.removesuffix(f"_{split}")
    measured = row.get("benchmark") or table
    if table in NOT_MEASURED:
        benchmarks: frozenset[str] | None = frozenset()
    else:
        known = measured in {place.benchmark for place in places}
        benchmarks = frozenset({measured}) if known else None
    return Subject(frozenset(of_file) if of_file else _named(row, dataset, runs), split, benchmarks)


def _named(row: Mapping[str, str], dataset: str, runs: set[Run]) -> frozenset[Run] | None:
    """Return the runs that a row names; None if it names nothing at all."""
    if row.get("dataset", dataset) != dataset:
        return frozenset()
    names = [row["system"]] if row.get("system") else [row[key] for key in NAMING if row.get(key)]
    if not names:
        return None
    stages = {word for key in STAGES for word in row.get(key, "").split()}
    return frozenset(
        run
        for run in runs
        if row.get("seed", run.seed) in ("", run.seed)
        and any(_names(name, stages, run) for name in names)
    )


def _names(text: str, stages: set[str], run: Run) -> bool:
    """Say whether a text names a run, by its system and stage or by its system alone."""
    if text == run.system:
        return not stages or run.stage in stages
    title = re.escape(f"{run.system} {run.stage}")
    found = re.finditer(rf"(?<!\w){title}(?!\w)(?: \(seed (\d+)\))?", text)
    return any(match[1] in (None, run.seed) for match in found)
