"""Metrics that need a model from outside: off by default, and no obstacle where it is missing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from capscope.data.annotations import Dataset, Image
from capscope.metrics.cache import placed
from capscope.metrics.rows import Row, splits_of
from capscope.metrics.statistics import Measure, average
from capscope.metrics.task import Task, Texts, UnavailableError, not_computed
from capscope.metrics.tokenized import Tokenizer, regroup

Measures = dict[str, Measure]
Settings = Mapping[str, Any]


class OptionalMetric(Protocol):
    """A metric whose model was found."""

    def measures(self, task: Task) -> list[Measures]:
        """Return the measures of every row of a task, or raise `UnavailableError`."""
        ...


def add_optional(rows: Sequence[Row], dataset: Dataset, settings: Settings) -> list[Row]:
    """Add SPICE, BERTScore and CLIPScore, as far as they are asked for.

    Parameters
    ----------
    rows : sequence of Row
        The human rows have no texts; theirs are means over leaving out each reference in turn.
    dataset : Dataset
        Without image files, CLIPScore is not computed.
    settings : mapping
        ``metrics`` of the parameters.

    Returns
    -------
    list of Row
        As given, with more measures. A metric whose model is missing is there without a value,
        with a note that says what to do.
    """
    chosen = [opener for key, opener in _OPENERS.items() if settings.get(key)]
    if not chosen:
        return list(rows)
    splits = splits_of(rows)
    tasks = [_task(dataset.split(split), own, dataset, settings) for split, own in splits.items()]
    added: dict[str, list[Measures]] = {split: [{} for _ in own] for split, own in splits.items()}
    for opener in chosen:
        names, start = opener(settings)
        found = _measured(names, start, [task for task, _ in tasks])
        for measures, (_, rounds), scores in zip(added.values(), tasks, found, strict=True):
            remaining = iter(scores)
            for row, count in zip(measures, rounds, strict=True):
                parts = [next(remaining) for _ in range(count)]
                row |= {name: _mean([part[name] for part in parts]) for name in names}
    more = {split: iter(measures) for split, measures in added.items()}
    return [
        replace(row, measures={**row.measures, **next(more[row.captions.split])}) for row in rows
    ]


def _task(
    images: Sequence[Image], rows: Sequence[Row], dataset: Dataset, settings: Settings
) -> tuple[Task, list[int]]:
    """Return the texts of a split, and how many rows of them belong to each of `rows`."""
    references = [image.references for image in images]
    said = [row.captions.texts for row in rows if row.captions.texts]
    flat = [text for image in references for text in image]
    cache = placed(settings["cache"]) if settings["cache"] else None
    tokenizer = Tokenizer(
        settings["tokenizer"], settings["parity"], float(settings["timeout"]), cache
    )
    tokens, *said_tokens = tokenizer.files([flat, *said])
    raw = Texts(references, said)
    tokenized = Texts(regroup(tokens, references), said_tokens)
    human = range(min(map(len, references)))
    rounds = [1 if row.captions.texts else len(human) for row in rows]
    left_out: list[int | None] = []
    for row in rows:
        left_out += [None] if row.captions.texts else human
    task = Task(
        _with_humans(raw, left_out),
        _with_humans(tokenized, left_out),
        left_out,
        [dataset.path(image) for image in images],
    )
    return task, rounds


def _with_humans(texts: Texts, left_out: Sequence[int | None]) -> Texts:
    """Put the left-out references where they are the captions."""
    said = iter(texts.rows)
    rows = [
        next(said) if place is None else [image[place] for image in texts.references]
        for place in left_out
    ]
    return Texts(texts.references, rows)


def _measured(
    names: Sequence[str], start: Callable[[], OptionalMetric], tasks: Sequence[Task]
) -> list[list[Measures]]:
    try:
        metric = start()
        return [metric.measures(task) for task in tasks]
    except UnavailableError as error:
        warnings.warn(f"{names[0]} is not computed: {error}", stacklevel=3)
        return [
            [
                {name: not_computed(len(task.raw.references), str(error)) for name in names}
                for _ in task.raw.rows
            ]
            for task in tasks
        ]


def _mean(rounds: Sequence[Measure]) -> Measure:
    return rounds[0] if len(rounds) == 1 else average(rounds)


def _spice(settings: Settings) -> tuple[Sequence[str], Callable[[], OptionalMetric]]:
    from capscope.metrics.spice import Spice
    from capscope.metrics.spice_models import models_folder

    options = settings["spice_options"]
    cache = placed(settings["cache"]) / "spice" if settings["cache"] else None
    models = models_folder(options)
    limits = {"memory_gb": options["memory_gb"], "timeout": options["timeout"]}
    return Spice.names, lambda: Spice(models, cache=cache, **limits)


def _bertscore(settings: Settings) -> tuple[Sequence[str], Callable[[], OptionalMetric]]:
    from capscope.metrics.bertscore import BertScore, names_of

    options = settings["bertscore_options"]
    return names_of(options["aggregation"]), lambda: BertScore(**options)


def _clipscore(settings: Settings) -> tuple[Sequence[str], Callable[[], OptionalMetric]]:
    from capscope.metrics.clipscore import ClipScore

    return ClipScore.names, lambda: ClipScore(**settings["clipscore_options"])


_OPENERS = {"spice": _spice, "bertscore": _bertscore, "clipscore": _clipscore}
