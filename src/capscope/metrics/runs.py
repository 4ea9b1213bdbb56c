"""Scoring all runs of a data set in one go, beside what humans score."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from capscope.data.annotations import SPLITS, Dataset, Image, open_dataset
from capscope.data.tokens import tokenize
from capscope.errors import CapscopeError
from capscope.files import check_file, read_json, record_of, write_manifest
from capscope.metrics.cache import placed
from capscope.metrics.corpus import open_corpus
from capscope.metrics.evaluate import CaptionScorer, leave_one_out
from capscope.metrics.meteor import LONGEST, Meteor
from capscope.metrics.optional import add_optional
from capscope.metrics.results import check_ids, read_results
from capscope.metrics.rows import HUMAN, Captions, Row, signature_text
from capscope.metrics.statistics import Measure, average
from capscope.metrics.tokenized import Tokenizer, regroup
from capscope.metrics.truth import ObjectTruth, read_truth


def evaluate_runs(
    data_dir: Path, run_dirs: Sequence[Path], params: Mapping[str, Any]
) -> tuple[Dataset, list[Row]]:
    """Score every ``decoded/<split>.json`` of all runs, and each reference against the others.

    Parameters
    ----------
    data_dir : Path
        From ``capscope data``.
    run_dirs : sequence of Path
        From ``capscope train``, with decoded captions.
    params : mapping
        ``dataset`` and ``metrics`` count.

    Returns
    -------
    dataset : Dataset
    rows : list of Row
        The human leave-one-out first in each split.

    Raises
    ------
    CapscopeError
        Naming the file: captions that cannot be read or are of other images, nothing decoded.
    """
    dataset = open_dataset(data_dir, params)
    runs = [captions for run_dir in run_dirs for captions in _read_run(run_dir, dataset)]
    settings = params["metrics"]
    truth = read_truth(data_dir, dataset, settings["cutoffs"])
    return dataset, add_optional(score(dataset, runs, truth, settings), dataset, settings)


def seal_scores(
    out: Path, data_dir: Path, run_dirs: Sequence[Path], params: Mapping[str, Any]
) -> None:
    """Write the manifest of the tables that the scores of runs are in."""
    inputs = {"data": record_of(data_dir)}
    for run_dir in run_dirs:
        for path in sorted((run_dir / "decoded").glob("*.json")):
            inputs[path.as_posix()] = record_of(path)
    chosen = {key: value for key, value in params["metrics"].items() if key != "cache"}
    drawn = {key: params["benchmarks"][key] for key in ("bootstrap", "seed")}
    write_manifest(out, "scores", params={"metrics": chosen, **drawn}, inputs=inputs)


def score(
    dataset: Dataset,
    runs: Sequence[Captions],
    truth: ObjectTruth | None,
    settings: Mapping[str, Any],
    *,
    human: bool = True,
) -> list[Row]:
    """Tokenise everything, then score split by split with one METEOR process.

    Parameters
    ----------
    dataset : Dataset
        Whose splits `runs` are captions of.
    runs : sequence of Captions
    truth : ObjectTruth or None
        What is known of the depicted objects.
    settings : mapping
        ``metrics`` of the parameters.
    human : bool
        Score each reference against the others of its image, too.
    """
    decoded = {run.split for run in runs}
    splits = {split: dataset.split(split) for split in SPLITS if split in decoded}
    cache = placed(settings["cache"]) if settings["cache"] else None
    timeout, backend = float(settings["timeout"]), settings["backend"]
    corpus = open_corpus(settings["frequencies"], dataset)
    tokenizer = Tokenizer(settings["tokenizer"], settings["parity"], timeout, cache)
    with Meteor(timeout=timeout, cache=cache) if settings["meteor"] else nullcontext() as meteor:
        files = [_flat(image.references for image in images) for images in splits.values()]
        files.append(_flat(corpus.groups))
        # Captions that were never tokenised were never aligned: METEOR may load its tables now.
        start = meteor.start if meteor is not None else None
        tokenized = tokenizer.files([*files, *(run.texts for run in runs)], start)
        frequencies = corpus.frequencies(tokenized[len(splits)])
        captions = list(zip(runs, tokenized[len(files) :], strict=True))
        rows: list[Row] = []
        for (split, images), flat in zip(splits.items(), tokenized, strict=False):
            references = regroup(flat, [image.references for image in images])
            scorer = partial(CaptionScorer, meteor=meteor, backend=backend, frequencies=frequencies)
            ours = [(run, texts) for run, texts in captions if run.split == split]
            if human:
                rows += _score_humans(images, references, truth, scorer)
            rows += _score_split(images, ours, truth, scorer(references))
    return rows


def _flat(groups: Iterable[Sequence[str]]) -> list[str]:
    return [text for group in groups for text in group]


def _read_run(run_dir: Path, dataset: Dataset) -> Iterator[Captions]:
    """Yield the captions of each split that a run has decoded."""
    info = read_json(run_dir / "model.json")
    files = sorted((run_dir / "decoded").glob("*.json"))
    if not files:
        raise CapscopeError(f"{run_dir / 'decoded'} holds no captions: run `capscope decode`")
    for path in files:
        decoding = check_file(path, "captions").get("params", {})
        signature = signature_text(info.get("signature") or {}, decoding)
        captions = read_results(path)
        images = dataset.split(path.stem)
        check_ids([image.id for image in images], captions, str(path))
        texts = tuple(captions[image.id] for image in images)
        try:
            run = Captions(info["system"], info["stage"], info["seed"], path.stem, texts, signature)
        except (KeyError, TypeError) as error:
            raise CapscopeError(f"{run_dir / 'model.json'} lacks {error}: train again") from error
        yield checked(run, path)


def checked(run: Captions, path: Path) -> Captions:
    """Warn of captions that are scored, but not as one might think."""
    _warn(path, sum(not text.strip() for text in run.texts), "are empty and score 0")
    long = sum(len(text.split()) > LONGEST for text in run.texts)
    _warn(path, long, f"are cut to {LONGEST} words for METEOR")
    return run


def _warn(path: Path, count: int, what: str) -> None:
    if count:
        warnings.warn(f"{path}: {count} captions {what}", stacklevel=4)


def _score_humans(
    images: Sequence[Image],
    references: Sequence[Sequence[str]],
    truth: ObjectTruth | None,
    scorer: Callable[[Sequence[Sequence[str]]], CaptionScorer],
) -> Iterator[Row]:
    """Yield the row of what humans say; none if some image has a single reference."""
    measures = leave_one_out(references, scorer)
    if measures is None:
        return
    if truth is not None:
        rounds = range(min(len(image.tokens) for image in images))
        measures |= _average_rounds([_one_against_others(truth, images, k) for k in rounds])
    yield Row(Captions(HUMAN, "", "", images[0].split, ()), measures)


def _score_split(
    images: Sequence[Image],
    runs: Sequence[tuple[Captions, list[str]]],
    truth: ObjectTruth | None,
    scorer: CaptionScorer,
) -> Iterator[Row]:
    words = [image.tokens for image in images]
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
