"""Histograms as SVG, drawn here: they follow the page's colours and can be clicked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
WIDTH, HEIGHT = 270, 126
LEFT, RIGHT, TOP, BOTTOM = 4, 4, 16, 18


@dataclass(frozen=True)
class Series:
    """Values under one name.

    Attributes
    ----------
    title : str
    values : ndarray (N,)
        NaN is left out.
    colour : str
        Class of the bars on the page. ``higher`` and ``lower`` are for differences, and say which
        way is better: bars on that side of 0 are for the first run, those on the other against it.
    data : mapping of str to str
        ``data-`` attributes of the bars, for the page's script.
    """

    title: str
    values: Values
    colour: str
    data: Mapping[str, str]


def score_edges(metric: str, values: Sequence[Values]) -> Values:
    """Return the bins of a metric: quarters from 0 to 6 of CIDEr, twentieths of 1 of all others.

    Whatever is higher is in the last bin.
    """
    if metric == "CIDEr":
        return np.linspace(0, 6, 25)
    most = max((float(np.nanmax(one)) for one in values if not np.isnan(one).all()), default=1.0)
    return np.linspace(0, max(1.0, np.ceil(most)), 21)


def difference_edges(values: Values) -> Values:
    """Return 11, 21 or 31 equal bins for < 50, < 500 or more values; 0 is amid the middle one."""
    known = np.abs(values[~np.isnan(values)])
    most = float(known.max()) if len(known) and known.max() > 0 else 1.0
    bins = 11 if len(known) < 50 else 21 if len(known) < 500 else 31
    return np.linspace(-most, most, bins + 1)


def counted(values: Values, edges: Values) -> NDArray[np.int64]:
    """Count values in bins [a, b); those beyond the ends are in the first and the last."""
    known = values[~np.isnan(values)]
    places = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(places, minlength=len(edges) - 1)


def histogram(title: str, series: Sequence[Series], edges: Values) -> str:
    """Return an SVG with the bars of all series side by side in each bin."""
    counts = [counted(one.values, edges) for one in series]
    highest = max(1, *(int(one.max()) for one in counts))
    inner, floor = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM
    step = inner / (len(edges) - 1)
    bar = (step - 1) / len(series)
    marks = []
    for bin_, (low, high) in enumerate(pairwise(edges)):
        for place, (one, count) in enumerate(zip(series, counts, strict=True)):
            if not count[bin_]:
                continue
            tall = max(1.0, (floor - TOP) * int(count[bin_]) / highest)
            colour = one.colour
            if colour in ("higher", "lower"):
                ahead = "for" if (low > 0) == (colour == "higher") else "against"
                colour = "even" if low < 0 < high else ahead
            x, y = LEFT + bin_ * step + place * bar, floor - tall
            data = {**one.data, "low": f"{low:.6g}", "high": f"{high:.6g}"}
            data["last"] = str(int(bin_ == len(edges) - 2))
            attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
            hint = f"{one.title}: {count[bin_]} images from {low:.3g} to {high:.3g}"
            marks.append(
                f'<rect class="bar {colour}" x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}"'
                f' height="{tall:.1f}" tabindex="0" {attributes}>'
                f"<title>{escape(hint)}</title></rect>"
            )
    middle = (edges[0] + edges[-1]) / 2
    labels = "".join(
        f'<text x="{x}" y="{HEIGHT - 4}" text-anchor="{anchor}">{value:.3g}</text>'
        for x, anchor, value in (
            (LEFT, "start", edges[0]),
            (LEFT + inner / 2, "middle", 0.0 if abs(middle) < 1e-12 else middle),
            (WIDTH - RIGHT, "end", edges[-1]),
        )
    )
    labels += f'<text x="{WIDTH - RIGHT}" y="{TOP - 5}" text-anchor="end">{highest}</text>'
    axis = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>'
    zero = LEFT + inner / 2
    if edges[0] < 0:
        axis += f'<line class="zero" x1="{zero}" x2="{zero}" y1="{TOP}" y2="{floor}"/>'
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">{"".join(marks)}{axis}{labels}</svg>'
    )
