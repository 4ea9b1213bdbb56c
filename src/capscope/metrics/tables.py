"""The scores of all runs as tidy tables: per run, per image, per pair of systems, over seeds."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from capscope.data.annotations import Dataset
from capscope.files import write_json, write_text
from capscope.metrics.comparison import compare_drawn
from capscope.metrics.registry import describe, metric
from capscope.metrics.rows import Row, metric_names, splits_of, systems_of
from capscope.metrics.statistics import Measure, Scores, average, percentiles, resample
from capscope.metrics.task import is_computed

CAPTIONS_TABLE = "captions.csv"
IMAGES_TABLE = "per_image.csv"
COMPARISONS_TABLE = "comparisons.csv"
SEEDS_TABLE = "seeds.csv"
METRICS_FILE = "metrics.json"
"""The values of ``captions.csv`` by system, stage, seed, split and metric, as DVC compares them."""
COMPARISONS = (
    *("dataset", "split", "metric", "first", "second", "first_seeds", "second_seeds"),
    *("difference", "low", "high", "p_bootstrap", "t", "p_t_test", "images", "direction"),
)
SEEDS = (
    *("dataset", "split", "system", "stage", "metric", "seeds", "mean", "sd", "min", "max"),
    "signature",
)
Line = dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """Lines of all tables, each a mapping of columns to values.

    Attributes
    ----------
    captions : list
        One line per run, split and metric, with bootstrap intervals over images.
    comparisons : list
        One line per split, metric and pair of systems (means over their seeds): the difference,
        its bootstrap interval, and the p-values of the paired bootstrap and the paired t-test.
    seeds : list
        One line per system, split and metric: mean and spread over seeds.
    images : list
        One line per caption, a column per metric.
    """

    captions: list[Line]
    comparisons: list[Line]
    seeds: list[Line]
    images: list[Line]

    @classmethod
    def of(cls, dataset: Dataset, rows: Sequence[Row], settings: Mapping[str, Any]) -> Tables:
        """Make all tables; `settings` has the resamples (``bootstrap``) and their ``seed``."""
        tables = cls([], [], [], list(_images(dataset, rows)))
        for split, of_split in splits_of(rows).items():
            drawn = _Drawn.of(of_split, settings["bootstrap"], settings["seed"])
            place = {"dataset": dataset.name, "split": split}
            tables.captions.extend(_captions(dataset.name, of_split, drawn))
            tables.comparisons.extend(_comparisons(place, of_split, drawn))
            tables.seeds.extend(_seeds(place, of_split))
        return tables

    def write(self, folder: Path) -> None:
        """Write the four tables as CSV, and the values of the first as JSON."""
        write_text(folder / CAPTIONS_TABLE, as_csv(self.captions))
        write_text(folder / IMAGES_TABLE, as_csv(self.images))
        write_text(folder / COMPARISONS_TABLE, as_csv(self.comparisons, COMPARISONS))
        write_text(folder / SEEDS_TABLE, as_csv(self.seeds, SEEDS))
        write_json(folder / METRICS_FILE, self.by_run())

    def by_run(self) -> dict[str, Any]:
        """Return the values of all runs, nested: system, stage, seed, split, metric."""
        found: dict[str, Any] = {}
        for line in self.captions:
            value = _defined(line["value"])
            if value is not None:
                place = found
                seed = f"seed{line['seed']}" if line["stage"] else ""
                for key in filter(None, (line["system"], line["stage"], seed, line["split"])):
                    place = place.setdefault(key, {})
                place[line["metric"]] = value
        return found

    def to_json(self) -> dict[str, list[Line]]:
        """Return all but the scores per image, null where a number is undefined."""
        parts = {"scores": self.captions, "comparisons": self.comparisons, "seeds": self.seeds}
        return {
            name: [{key: _defined(value) for key, value in line.items()} for line in lines]
            for name, lines in parts.items()
        }


def as_csv(lines: Sequence[Line], columns: Sequence[str] = ()) -> str:
    """Render lines as CSV: six digits, nothing where a number is undefined.

    The columns are those of the first line unless they are given.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = columns or list(lines[0])
    writer.writerow(columns)
    writer.writerows([_cell(line[column]) for column in columns] for line in lines)
    return stream.getvalue()


@dataclass(frozen=True)
class _Drawn:
    """The scores of all rows of a split on the same resamples of its images."""

    scores: Mapping[tuple[int, str], Scores]

    @classmethod
    def of(cls, rows: Sequence[Row], resamples: int, seed: int) -> _Drawn:
        keys = [(place, name) for place, row in enumerate(rows) for name in row.measures]
        measures = [rows[place].measures[name] for place, name in keys]
        drawn = resample(measures, resamples=resamples, seed=seed)
        return cls(dict(zip(keys, drawn, strict=True)))

    def mean(self, places: Iterable[int], name: str) -> Scores:
        """Return the mean over seeds, undefined scores left out."""
        return _mean([self.scores[place, name] for place in places])


def _captions(dataset: str, rows: Sequence[Row], drawn: _Drawn) -> Iterator[Line]:
    for place, row in enumerate(rows):
        run = row.captions
        for name, measure in row.measures.items():
            low, high = percentiles(drawn.scores[place, name])
            yield {
                "dataset": dataset,
                "system": run.system,
                "stage": run.stage,
                "seed": run.seed,
                "split": run.split,
                "metric": name,
                "value": measure.value,
                "low": low,
                "high": high,
                "chance": measure.chance,
                "count": measure.count,
                "direction": metric(name).direction,
                "definition": describe(name, measure),
                "signature": run.signature,
            }


def _images(dataset: Dataset, rows: Sequence[Row]) -> Iterator[Line]:
    """Yield a line per caption; the human scores are means over references, without a caption."""
    names = metric_names(rows)
    for row in rows:
        run = row.captions
        columns = {name: row.measures[name].per_image for name in names if name in row.measures}
        for place, image in enumerate(dataset.split(run.split)):
            yield {
                "dataset": dataset.name,
                "system": run.system,
                "stage": run.stage,
                "seed": run.seed,
                "split": run.split,
                "image_id": image.id,
                "caption": run.texts[place] if run.texts else "",
            } | {name: float(columns[name][place]) if name in columns else None for name in names}


def _comparisons(place: Line, rows: Sequence[Row], drawn: _Drawn) -> Iterator[Line]:
    systems = systems_of(rows)
    for name in metric_names(rows):
        scored = {
            key: (average(measures), drawn.mean(places, name), len(places))
            for key, places in systems.items()
            if (measures := _measures(rows, places, name))
        }
        for first, second in combinations(scored, 2):
            ours, our_draws, our_seeds = scored[first]
            theirs, their_draws, their_seeds = scored[second]
            compared = compare_drawn(ours, theirs, our_draws, their_draws)
            yield {
                **place,
                "metric": name,
                "first": " ".join(filter(None, first)),
                "second": " ".join(filter(None, second)),
                "first_seeds": our_seeds,
                "second_seeds": their_seeds,
                **vars(compared),
                "direction": metric(name).direction,
            }


def _seeds(place: Line, rows: Sequence[Row]) -> Iterator[Line]:
    for (system, stage), places in systems_of(rows).items():
        for name in metric_names([rows[k] for k in places]):
            values = np.array([one.value for one in _measures(rows, places, name)])
            values = values[~np.isnan(values)]
            if len(values):
                yield {
                    **place,
                    "system": system,
                    "stage": stage,
                    "metric": name,
                    "seeds": len(values),
                    "mean": float(values.mean()),
                    "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                    "min": float(values.min()),
                    "max": float(values.max()),
                    "signature": rows[places[0]].captions.signature,
                }


def _measures(rows: Sequence[Row], places: Sequence[int], name: str) -> list[Measure]:
    """Return a metric of all seeds of a system; nothing unless it was computed for all of them."""
    found = [rows[k].measures[name] for k in places if name in rows[k].measures]
    found = [measure for measure in found if is_computed(measure)]
    return found if len(found) == len(places) else []


def _mean(scores: Sequence[Scores]) -> Scores:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # undefined for all seeds: NaN
        mean: Scores = np.nanmean(scores, axis=0)
    return mean


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
