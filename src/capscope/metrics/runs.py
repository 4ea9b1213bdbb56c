"""Scoring all runs of a data set in one go, beside what humans score."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capscope.data.annotations import SPLITS, Dataset, Image, open_dataset
from capscope.data.tokens import tokenize
from capscope.errors import CapscopeError
from capscope.files import read_json, write_text
from capscope.metrics.evaluate import CaptionScorer, leave_one_out, regroup, tokenize_files
from capscope.metrics.meteor import LONGEST, Meteor
from capscope.metrics.registry import METRICS, describe
from capscope.metrics.results import check_ids, read_references, read_results
from capscope.metrics.statistics import Measure, average, interval
from capscope.metrics.truth import ObjectTruth, read_truth

CAPTIONS_TABLE = "captions.csv"
IMAGES_TABLE = "per_image.csv"
HUMAN = "human"
COLUMNS = (
    *("dataset", "system", "stage", "seed", "split", "metric", "value", "low", "high"),
    *("chance", "count", "direction", "definition"),
)


@dataclass(frozen=True)
class Captions:
    """The captions of one run for one split, in the order of the split's images."""

    system: str
    stage: str
    seed: int | str
    split: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """The measures of one run on one split."""

    captions: Captions
    measures: Mapping[str, Measure]


def evaluate_runs(
    data_dir: Path, run_dirs: Sequence[Path], params: Mapping[str, Any], out: Path
) -> list[Row]:
    """Score every ``decoded/<split>.json`` of all runs, and each reference against the others.

    Parameters
    ----------
    data_dir : Path
        From ``capscope data``.
    run_dirs : sequence of Path
        From ``capscope train``, with decoded captions.
    params : mapping
        ``metrics``, and of ``benchmarks`` the resamples (``bootstrap``) and ``seed`` of intervals.
    out : Path
        Gets ``captions.csv`` (one row per run, split and metric, with bootstrap intervals over
        images) and ``per_image.csv`` (one row per caption, a column per metric).

    Returns
    -------
    list of Row
        What was written; the human leave-one-out first in each split.

    Raises
    ------
    CapscopeError
        Naming the file: captions that cannot be read or are of other images, nothing decoded.
    """
    dataset = open_dataset(data_dir, params)
    runs = [captions for run_dir in run_dirs for captions in _read_run(run_dir, dataset)]
    rows = _score(dataset, runs, read_truth(data_dir), params["metrics"])
    _write_tables(out, dataset, rows, params["benchmarks"])
    return rows


def evaluate_files(
    references: Path, candidates: Sequence[Path], params: Mapping[str, Any], out: Path | None = None
) -> list[Row]:
    """Score COCO results files against a COCO captions file, of any origin.

    Parameters
    ----------
    references : Path
        COCO captions JSON, such as ``captions_val2017.json``.
    candidates : sequence of Path
        COCO results JSON, each with one caption for every image that has references.
    params : mapping
        As for `evaluate_runs`.
    out : Path, optional
        Gets ``captions.csv`` and ``per_image.csv``.
    """
    dataset = read_references(references)
    ids = [image.id for image in dataset.images]
    runs = []
    for path in candidates:
        captions = read_results(path)
        check_ids(ids, captions, str(path))
        texts = tuple(captions[image_id] for image_id in ids)
        runs.append(_checked(Captions(path.stem, "", "-", "test", texts), path))
    rows = _score(dataset, runs, None, params["metrics"])
    if out is not None:
        _write_tables(out, dataset, rows, params["benchmarks"])
    return rows


def _score(
    dataset: Dataset,
    runs: Sequence[Captions],
    truth: ObjectTruth | None,
    settings: Mapping[str, Any],
) -> list[Row]:
    """Tokenise everything, then score split by split with one METEOR process."""
    decoded = {run.split for run in runs}
    splits = {split: dataset.split(split) for split in SPLITS if split in decoded}
    timeout = float(settings["timeout"])
    with Meteor(timeout=timeout) if settings["meteor"] else nullcontext() as meteor:
        if meteor is not None:
            meteor.start()
        files = [
            [text for image in images for text in image.references] for images in splits.values()
        ]
        tokenized = tokenize_files(
            [*files, *(run.texts for run in runs)],
            settings["tokenizer"],
            parity=settings["parity"],
            timeout=timeout,
        )
        captions = list(zip(runs, tokenized[len(files) :], strict=True))
        rows: list[Row] = []
        for (split, images), flat in zip(splits.items(), tokenized, strict=False):
            references = regroup(flat, [image.references for image in images])
            ours = [(run, texts) for run, texts in captions if run.split == split]
            rows += _score_split(images, references, ours, truth, meteor, settings["backend"])
    return rows


def _read_run(run_dir: Path, dataset: Dataset) -> Iterator[Captions]:
    """Yield the captions of each split that a run has decoded."""
    info = read_json(run_dir / "model.json")
    files = sorted((run_dir / "decoded").glob("*.json"))
    if not files:
        raise CapscopeError(f"{run_dir / 'decoded'} holds no captions: run `capscope decode`")
    for path in files:
        captions = read_results(path)
        images = dataset.split(path.stem)
        check_ids([image.id for image in images], captions, str(path))
        texts = tuple(captions[image.id] for image in images)
        try:
            run = Captions(info["system"], info["stage"], info["seed"], path.stem, texts)
        except (KeyError, TypeError) as error:
            raise CapscopeError(f"{run_dir / 'model.json'} lacks {error}: train again") from error
        yield _checked(run, path)


def _checked(run: Captions, path: Path) -> Captions:
    """Warn of captions that are scored, but not as one might think."""
    _warn(path, sum(not text.strip() for text in run.texts), "are empty and score 0")
    long = sum(len(text.split()) > LONGEST for text in run.texts)
    _warn(path, long, f"are cut to {LONGEST} words for METEOR")
    return run


def _warn(path: Path, count: int, what: str) -> None:
    if count:
        warnings.warn(f"{path}: {count} captions {what}", stacklevel=4)


def _score_split(
    images: Sequence[Image],
    references: Sequence[Sequence[str]],
    runs: Sequence[tuple[Captions, list[str]]],
    truth: ObjectTruth | None,
    meteor: Meteor | None,
    backend: str,
) -> Iterator[Row]:
    words = [image.tokens for image in images]
    human = leave_one_out(references, meteor, backend)
    if human is not None:
        rounds = range(min(map(len, words)))
        if truth is not None:
            human |= _average_rounds([_one_against_others(truth, images, k) for k in rounds])
        yield Row(Captions(HUMAN, "", "", images[0].split, ()), human)
    scorer = CaptionScorer(references, meteor, backend)
    for run, tokenized in runs:
        measures = scorer.measures(tokenized)
        if truth is not None:
            measures |= truth.measures(images, words, [tokenize(text) for text in run.texts])
        yield Row(run, measures)


def _one_against_others(
    truth: ObjectTruth, images: Sequence[Image], chosen: int
) -> dict[str, Measure]:
    others = [[*image.tokens[:chosen], *image.tokens[chosen + 1 :]] for image in images]
    return truth.measures(images, others, [image.tokens[chosen] for image in images])


def _average_rounds(rounds: Sequence[Mapping[str, Measure]]) -> dict[str, Measure]:
    return {name: average([measures[name] for measures in rounds]) for name in rounds[0]}


def _write_tables(
    out: Path, dataset: Dataset, rows: Sequence[Row], settings: Mapping[str, Any]
) -> None:
    resampling = {key: settings[key] for key in ("bootstrap", "seed")}
    write_text(out / CAPTIONS_TABLE, _captions_table(dataset.name, rows, **resampling))
    write_text(out / IMAGES_TABLE, _images_table(dataset, rows))


def _captions_table(dataset: str, rows: Sequence[Row], bootstrap: int, seed: int) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        run = row.captions
        for name, measure in row.measures.items():
            low, high = interval(measure, resamples=bootstrap, seed=seed)
            numbers = [measure.value, low, high, measure.chance]
            writer.writerow(
                [dataset, run.system, run.stage, run.seed, run.split, name]
                + [_number(number) for number in numbers]
                + [measure.count, METRICS[name].direction, describe(name, measure)]
            )
    return stream.getvalue()


def _images_table(dataset: Dataset, rows: Sequence[Row]) -> str:
    """One row per caption; the human scores are means over references, without a caption."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [name for name in METRICS if any(name in row.measures for row in rows)]
    writer.writerow(["dataset", "system", "stage", "seed", "split", "image_id", "caption", *names])
    for row in rows:
        run = row.captions
        columns = [row.measures[name].per_image for name in names]
        for place, image in enumerate(dataset.split(run.split)):
            writer.writerow(
                [dataset.name, run.system, run.stage, run.seed, run.split, image.id]
                + [run.texts[place] if run.texts else ""]
                + [_number(float(column[place])) for column in columns]
            )
    return stream.getvalue()


def _number(value: float | None) -> str:
    """Six digits; nothing where a score is undefined."""
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
