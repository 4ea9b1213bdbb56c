"""The comparison page: two or more runs on the same images, in one file that opens from disk."""

from __future__ import annotations

import base64
import difflib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capscope.data.annotations import Dataset
from capscope.data.images import UnreadableImageError, read_image
from capscope.files import write_text
from capscope.metrics.pairs import compared
from capscope.metrics.registry import metric
from capscope.report.histogram import Series, difference_edges, histogram, score_edges
from capscope.report.template import render

if TYPE_CHECKING:
    from capscope.metrics.pairs import ScoredRun, SplitScores
    from capscope.metrics.tables import Line

THUMBNAIL = 200
"""Longer side of an image in pixels."""
LEADING = ("CIDEr", "SPICE", "METEOR", "BLEU-4", "ROUGE-L")
"""Metrics by which images differ; the first that there is."""
FEW = 5
"""With so many runs, all pairs are laid out."""
STATISTICS = ("images", "mean", "sd", "min", "25 %", "50 %", "75 %", "max")


@dataclass(frozen=True)
class Said:
    """A run's caption of an image: its words, those that the other run has not, and its score."""

    run: str
    colour: str
    words: tuple[tuple[str, bool], ...]
    score: str


@dataclass(frozen=True)
class Differing:
    """An image of which two runs' captions differ."""

    image_id: int
    picture: tuple[str, int, int] | None
    """Data URL, width and height; None where there is no image file."""
    said: tuple[Said, ...]
    others: str
    """The other scores, in one line."""
    references: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two runs compared."""

    title: str
    anchor: str
    first: str
    second: str
    runs: list[tuple[str, str]]
    """Title and colour."""
    lines: list[dict[str, str]]
    figures: list[tuple[str, str]]
    """Metric and SVG."""
    better: list[tuple[str, list[Differing]]]
    """Run, and the images of which it has the better caption."""


@dataclass(frozen=True)
class Part:
    """All that the page shows of a split."""

    split: str
    images: int
    leading: str
    runs: list[tuple[str, str]]
    """Title and colour."""
    overall: list[tuple[str, list[tuple[str, bool]]]]
    """Metric, and of humans and of each run its score and whether it is the best run's."""
    human: bool
    all_pairs: bool
    """Whether no pair is left out."""
    pairs: list[Pair]
    drawn: list[tuple[str, str]]
    """Title and colour of the runs in the distributions: of many, the best of each system."""
    figures: list[tuple[str, str]]
    described: list[tuple[str, str, list[str]]]
    """Metric, run and `STATISTICS`."""
    data: dict[str, Any]
    """What the script lists images from."""


def write_comparison(
    splits: Sequence[SplitScores], dataset: Dataset, out: Path, *, images: int = 24
) -> None:
    """Write the page.

    Parameters
    ----------
    splits : sequence of SplitScores
        From `capscope.metrics.pairs`.
    dataset : Dataset
        References and, where their files are there, images.
    out : Path
        The HTML file.
    images : int
        How many differing images of each split are shown, all pairs together; at least four of
        each pair.
    """
    parts = [_part(scores, dataset, images) for scores in splits]
    page = render(
        "comparison.jinja",
        title="runs compared",
        subject=dataset.name,
        parts=parts,
        statistics=STATISTICS,
        data={part.split: part.data for part in parts},
    )
    write_text(out, page)


def _part(scores: SplitScores, dataset: Dataset, images: int) -> Part:
    names = scores.metrics
    leading = next((name for name in LEADING if name in names), names[0])
    pairs, drawn = _shown(scores, leading), _leaders(scores, leading)
    # Those that are drawn together differ in colour; the others share what is left.
    order = [*drawn, *(run for run in scores.runs if run not in drawn)]
    colours = {run.title: f"run{min(place, 5)}" for place, run in enumerate(order)}
    each = max(4, images // len(pairs))
    return Part(
        split=scores.split,
        images=len(scores.image_ids),
        leading=leading,
        runs=[(run.title, colours[run.title]) for run in scores.runs],
        overall=list(_overall(scores)),
        human=bool(scores.human),
        all_pairs=len(scores.runs) <= FEW,
        pairs=[
            _pair(scores, dataset, leading, colours, first, second, lines, each)
            for first, second, lines in pairs
        ],
        drawn=[(run.title, colours[run.title]) for run in drawn],
        figures=[(name, _distribution(scores, name, colours, drawn)) for name in names],
        described=[
            (name, run.title, _described(run.scores[name])) for name in names for run in scores.runs
        ],
        data={
            "ids": scores.image_ids,
            "runs": [
                {
                    "title": run.title,
                    "colour": colours[run.title],
                    "captions": run.captions,
                    "scores": {name: _rounded(run.scores[name]) for name in names},
                }
                for run in scores.runs
            ],
        },
    )


def _shown(scores: SplitScores, leading: str) -> list[tuple[ScoredRun, ScoredRun, list[Line]]]:
    """Return the pairs that are laid out: of many runs, those of one system and those of the best.

    The first word of a run's title is its system.
    """
    best = max(scores.runs, key=lambda run: np.nan_to_num(run.overall.get(leading, math.nan)))
    few = len(scores.runs) <= FEW
    return [
        (first, second, compared(first, second, scores.metrics))
        for first, second in combinations(scores.runs, 2)
        if few or best in (first, second) or first.title.split()[0] == second.title.split()[0]
    ]


def _overall(scores: SplitScores) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Yield the table of scores over all images; the better of the runs are marked."""
    directions = {name: metric(name).direction for name in scores.metrics}
    for name in scores.metrics:
        values = [run.overall.get(name, math.nan) for run in scores.runs]
        known = [value for value in values if not math.isnan(value)]
        best = (max if directions[name] == "higher" else min)(known, default=math.nan)
        cells = [(_number(value), value == best and len(set(known)) > 1) for value in values]
        if scores.human:
            cells.insert(0, (_number(scores.human.get(name, math.nan)), False))
        yield name, cells


def _pair(
    scores: SplitScores,
    dataset: Dataset,
    leading: str,
    colours: Mapping[str, str],
    first: ScoredRun,
    second: ScoredRun,
    lines: Sequence[Mapping[str, Any]],
    images: int,
) -> Pair:
    if len(scores.runs) > FEW:  # then colours tell only the leaders apart
        colours = {first.title: "run0", second.title: "run1"}
    places = [scores.runs.index(run) for run in (first, second)]
    key = "-".join(map(str, places))
    figures = []
    for line in lines:
        name = line["metric"]
        values = first.scores[name] - second.scores[name]
        data = {"split": scores.split, "metric": name, "runs": key}
        title = f"{name}, {first.title} minus {second.title}"
        one = Series(title, values, line["direction"], data)
        figures.append((name, histogram(title, [one], difference_edges(values))))
    gains = np.nan_to_num(first.scores[leading] - second.scores[leading])
    better = []
    for run, sign in ((first, 1), (second, -1)):
        order = np.argsort(-sign * gains, kind="stable")[: images - images // 2]
        chosen = [int(place) for place in order if sign * gains[place] > 0]
        cards = [
            _differing(scores, dataset, place, leading, colours, (first, second))
            for place in chosen
        ]
        better.append((run.title, cards))
    return Pair(
        title=f"{first.title} − {second.title}",
        anchor=f"{scores.split}-{key}",
        first=first.title,
        second=second.title,
        runs=[(run.title, colours[run.title]) for run in (first, second)],
        lines=[_line(line) for line in lines],
        figures=figures,
        better=better,
    )


def _differing(
    scores: SplitScores,
    dataset: Dataset,
    place: int,
    leading: str,
    colours: Mapping[str, str],
    runs: tuple[ScoredRun, ScoredRun],
) -> Differing:
    image = dataset.by_id(scores.image_ids[place])
    words = [run.captions[place].split() for run in runs]
    said = tuple(
        Said(
            run.title,
            colours[run.title],
            tuple(_marked(words[k], words[1 - k])),
            _number(run.scores[leading][place]),
        )
        for k, run in enumerate(runs)
    )
    others = [
        f"{name} {' / '.join(_number(run.scores[name][place]) for run in runs)}"
        for name in scores.metrics
        if name != leading and "@" not in name
        if not all(math.isnan(run.scores[name][place]) for run in runs)
    ]
    return Differing(
        image.id, picture_of(dataset, image.id), said, " · ".join(others), image.references
    )


def _marked(words: Sequence[str], other: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield the words of a caption, and whether the other caption has something else there."""
    matcher = difflib.SequenceMatcher(a=words, b=other, autojunk=False)
    for kind, begin, end, _, _ in matcher.get_opcodes():
        for word in words[begin:end]:
            yield word, kind != "equal"


def picture_of(dataset: Dataset, image_id: int) -> tuple[str, int, int] | None:
    """Return an image as a data URL, and its size; None where its file is missing or damaged."""
    try:
        picture = read_image(dataset.path(dataset.by_id(image_id)))
    except UnreadableImageError:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=82, method=4)
    url = "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    return url, picture.width, picture.height


def _leaders(scores: SplitScores, leading: str) -> list[ScoredRun]:
    """Return the runs that a histogram can tell apart: of many, the best of each system."""
    if len(scores.runs) <= FEW:
        return list(scores.runs)
    ranked = sorted(scores.runs, key=lambda run: -np.nan_to_num(run.overall.get(leading, math.nan)))
    best: dict[str, ScoredRun] = {}
    for run in ranked:
        best.setdefault(run.title.split()[0], run)
    return list(best.values())[:FEW]


def _distribution(
    scores: SplitScores, name: str, colours: Mapping[str, str], drawn: Sequence[ScoredRun]
) -> str:
    values = [run.scores[name] for run in drawn]
    series = [
        Series(
            run.title,
            run.scores[name],
            colours[run.title],
            {"split": scores.split, "metric": name, "runs": str(scores.runs.index(run))},
        )
        for run in drawn
    ]
    return histogram(f"{name} of single images", series, score_edges(name, values))


def _described(values: np.ndarray[Any, Any]) -> list[str]:
    known = values[~np.isnan(values)]
    if not len(known):
        return ["0", *[""] * (len(STATISTICS) - 1)]
    spread = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    parts = [float(part) for part in np.percentile(known, [0, 25, 50, 75, 100])]
    return [str(len(known)), *map(_number, [float(known.mean()), spread, *parts])]


def _line(line: Mapping[str, Any]) -> dict[str, str]:
    """Return a line of the table of a pair as texts, with the winner where p is below 0.05."""
    shown = {key: _number(line[key]) for key in ("first", "second", "first_mean", "second_mean")}
    difference, p = line["difference"], line["p"]
    lower = line["direction"] == "lower"
    clear = not math.isnan(p) and p < 0.05
    winner = ("first" if (difference > 0) != lower else "second") if clear else ""
    return {
        **shown,
        "metric": line["metric"] + (" (lower is better)" if lower else ""),
        "difference": "" if math.isnan(difference) else f"{difference:+.4f}",
        "t": "" if math.isnan(line["t"]) else f"{line['t']:.2f}",
        "p": "" if math.isnan(p) else f"{p:.4f}" if p >= 1e-4 else "< 0.0001",
        "images": str(line["images"]),
        "winner": winner,
    }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _rounded(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [None if math.isnan(value) else round(float(value), 4) for value in values]
