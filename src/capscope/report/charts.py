"""Charts as SVG, drawn here: a page gives them its colours and width; a file has its own.

A figure is some panels. On a page each is as wide as there is room for and follows light and dark;
as a file they stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from capscope.files import write_text

COLOURS = {"one": "#0b6e99", "two": "#d1495b", "three": "#7fb3c8", "muted": "#9aa5b1"}
"""Colours of marks, by class; the style sheet of the pages has them for the dark, too."""
INK, FAINT = "#1f2933", "#e5e7eb"
WIDTH, PLOT = 400, 190
"""Of a panel, and the height of curves, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 30, 36
BAR, LETTER = 17, 6.3
"""Height of a bar with its gap, and about how wide a letter is."""
LONGEST = 26
"""Letters of a bar's name."""
POINTS, DOTTED = 500, 30
"""So many points of a curve are drawn at most, and so many with a dot."""


@dataclass(frozen=True)
class Curve:
    """Values over some axis; `colour` is one of `COLOURS`; the band is from `low` to `high`."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    thin: bool = False
    """Behind the others: without dots, and without a place in the legend if it has no label."""


@dataclass(frozen=True)
class Curves:
    """A panel of curves."""

    title: str
    axis: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Part:
    """One value for each bar of a panel; the parts of a bar stand end to end."""

    label: str
    colour: str
    values: Sequence[float]


@dataclass(frozen=True)
class Bars:
    """A panel of bars, one below the other."""

    title: str
    names: Sequence[str]
    parts: Sequence[Part]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    muted: Sequence[bool] = ()
    """Which bars are only there to be compared with."""
    end: float = 1.0


@dataclass(frozen=True)
class Figure:
    """Panels of one subject."""

    title: str
    panels: Sequence[Curves | Bars]
    columns: int = 3
    """Of the file."""

    @property
    def drawings(self) -> list[str]:
        """Each panel as an SVG of its own, for a page."""
        return [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {_height(panel)}" role="img"'
            f' aria-label="{escape(in_words(panel))}">{_drawn(panel)}</svg>'
            for panel in self.panels
        ]


def save_figure(figure: Figure, path: Path) -> None:
    """Write all panels as one SVG; the same figure gives the same bytes."""
    marks, top, wide = [], 0, min(figure.columns, len(figure.panels)) * WIDTH
    for start in range(0, len(figure.panels), figure.columns):
        row = figure.panels[start : start + figure.columns]
        for place, panel in enumerate(row):
            marks.append(f'<g transform="translate({place * WIDTH} {top})">{_drawn(panel)}</g>')
        top += max(map(_height, row))
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{top}"'
        f' viewBox="0 0 {wide} {top}"><title>{escape(figure.title)}</title>'
        f'<rect width="{wide}" height="{top}" fill="#fff"/>{"".join(marks)}</svg>\n',
    )


def in_words(panel: Curves | Bars) -> str:
    """Return what a panel shows to those who do not see it."""
    if isinstance(panel, Bars):
        sums = [sum(values) for values in zip(*(part.values for part in panel.parts), strict=True)]
        said = [f"{name} {value:.2f}" for name, value in zip(panel.names, sums, strict=True)]
    else:
        said = [
            f"{curve.label or 'single steps'} from {curve.y[0]:.3g} to {curve.y[-1]:.3g}"
            for curve in panel.curves
            if len(curve.y) and not curve.thin
        ]
    return f"{panel.title}: {'; '.join(said) or 'nothing to draw'}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, at most `most`."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * k for k in (1, 2, 2.5, 5, 10, 20) if span / (power * k) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    found = [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
    return found or [low]


def _height(panel: Curves | Bars) -> int:
    inner = BAR * len(panel.names) if isinstance(panel, Bars) else PLOT
    return TOP + inner + BOTTOM + 16 * len(_legend_lines(panel))


def _drawn(panel: Curves | Bars) -> str:
    marks = _bars(panel) if isinstance(panel, Bars) else _curves(panel)
    title = _text(0, 15, panel.title, "start", size=12.5, bold=True)
    return title + "".join(marks) + "".join(_legend(panel))


def _curves(panel: Curves) -> Iterator[str]:
    known = [curve for curve in panel.curves if len(curve.y)]
    if not known:
        yield _text(WIDTH / 2, TOP + PLOT / 2, "nothing to draw", "middle")
        return
    across = [float(x) for curve in known for x in curve.x]
    up = [float(y) for c in known for y in (*c.y, *c.low, *c.high) if math.isfinite(y)]
    x_low, x_high, y_low, y_high = min(across), max(across), min(up, default=0), max(up, default=1)
    room = 0.06 * (y_high - y_low or abs(y_high) or 1.0)
    y_low, y_high = y_low - room, y_high + room
    x_span, inner = (x_high - x_low) or 1.0, WIDTH - LEFT - RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        at = (x - x_low) / x_span if x_high > x_low else 0.5
        return LEFT + inner * at, TOP + PLOT * (y_high - y) / (y_high - y_low)

    for y in ticks(y_low, y_high):
        _, at = place(x_low, y)
        yield _line(LEFT, at, WIDTH - RIGHT, at, "grid", FAINT)
        yield _text(LEFT - 6, at + 4, f"{y:g}", "end")
    for x in ticks(x_low, x_high):
        at, _ = place(x, y_low)
        yield _text(at, TOP + PLOT + 15, f"{x:g}", "middle")
    yield _text(LEFT + inner / 2, TOP + PLOT + 30, panel.axis, "middle")
    yield _line(LEFT, TOP, LEFT, TOP + PLOT, "axis", INK)
    yield _line(LEFT, TOP + PLOT, WIDTH - RIGHT, TOP + PLOT, "axis", INK)
    for curve in sorted(known, key=lambda one: not one.thin):
        hue, every = COLOURS[curve.colour], max(1, math.ceil(len(curve.y) / POINTS))
        kept = [k for k in range(0, len(curve.y), every) if math.isfinite(curve.y[k])]
        dots = [place(curve.x[k], curve.y[k]) for k in kept]
        if len(curve.low):
            edge = [place(curve.x[k], curve.high[k]) for k in kept]
            edge += [place(curve.x[k], curve.low[k]) for k in reversed(kept)]
            if all(math.isfinite(y) for _, y in edge):
                style = f'class="fill {curve.colour}" fill="{hue}" opacity=".15"'
                yield f'<path {style} d="M{_path(edge)}Z"/>'
        thick = 1 if curve.thin else 2
        yield (
            f'<path class="stroke {curve.colour}" fill="none" stroke="{hue}"'
            f' stroke-width="{thick}" stroke-linejoin="round" d="M{_path(dots)}"/>'
        )
        if len(dots) == 1 or not (curve.thin or len(dots) > DOTTED):
            for x, y in dots:
                circle = f'cx="{x:.1f}" cy="{y:.1f}" r="2.6"'
                yield f'<circle class="fill {curve.colour}" {circle} fill="{hue}"/>'


def _bars(panel: Bars) -> Iterator[str]:
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in panel.names]
    left = 12 + LETTER * max((len(name) for name in names), default=0)
    inner, floor = WIDTH - left - RIGHT - 4, TOP + BAR * len(names)
    for value in ticks(0.0, panel.end):
        at = left + inner * value / panel.end
        yield _line(at, TOP, at, floor, "grid", FAINT)
        yield _text(at, floor + 15, f"{value:g}", "middle")
    for row, name in enumerate(names):
        y, start = TOP + BAR * row + 2, 0.0
        yield _text(left - 6, y + 11, name, "end")
        for part in panel.parts:
            value = part.values[row]
            if not value or not math.isfinite(value):
                continue
            colour = "muted" if panel.muted and panel.muted[row] else part.colour
            at = left + inner * start / panel.end
            yield (
                f'<rect class="fill {colour}" x="{at:.1f}" y="{y}" height="{BAR - 4}"'
                f' width="{max(0.0, inner * value / panel.end):.1f}" fill="{COLOURS[colour]}"/>'
            )
            start += value
        ends = [side[row] for side in (panel.low, panel.high) if len(side)]
        if len(ends) == 2 and all(math.isfinite(one) for one in ends):
            low, high = (left + inner * min(max(one / panel.end, 0.0), 1.0) for one in ends)
            yield _line(low, y + 6.5, high, y + 6.5, "axis", INK, 1.4)
    yield _line(left, TOP, left, floor, "axis", INK)


def _entries(panel: Curves | Bars) -> list[tuple[str, str]]:
    """Return label and colour of what a legend must tell apart."""
    if isinstance(panel, Bars):
        found = [(part.label, part.colour) for part in panel.parts if any(part.values)]
    else:
        found = [(curve.label, curve.colour) for curve in panel.curves if len(curve.y)]
    labelled = [entry for entry in dict.fromkeys(found) if entry[0]]
    return labelled if len(labelled) > 1 else []


def _legend_lines(panel: Curves | Bars) -> list[list[tuple[float, str, str]]]:
    """Return the lines of the legend: where each entry begins, its label and colour."""
    lines: list[list[tuple[float, str, str]]] = []
    x = math.inf
    for label, colour in _entries(panel):
        wide = 24 + LETTER * len(label)
        if x + wide > WIDTH:
            lines.append([])
            x = 6.0
        lines[-1].append((x, label, colour))
        x += wide
    return lines


def _legend(panel: Curves | Bars) -> Iterator[str]:
    lines = _legend_lines(panel)
    lower = _height(panel) - 16 * len(lines)
    for row, entries in enumerate(lines):
        for x, label, colour in entries:
            y = lower + 16 * row
            yield (
                f'<rect class="fill {colour}" x="{x:.1f}" y="{y + 2}" width="10" height="10"'
                f' rx="2" fill="{COLOURS[colour]}"/>'
            )
            yield _text(x + 14, y + 11, label, "start")


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return the points of a path; equal neighbours are one."""
    texts = [f"{x:.1f} {y:.1f}" for x, y in points]
    kept = texts[:1] + [after for before, after in pairwise(texts) if after != before]
    return "L".join(kept)


def _line(
    x0: float, y0: float, x1: float, y1: float, name: str, colour: str, width: float = 1.0
) -> str:
    return (
        f'<line class="{name}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
        f' stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(
    x: float, y: float, text: str, anchor: str, *, size: float = 11, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{weight}'
        f' font-family="system-ui, Helvetica, Arial, sans-serif" fill="{INK}">{escape(text)}</text>'
    )
