"""Charts: marks are where the numbers say, texts stay in the panel, bytes are always the same."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from capscope.report.charts import (
    LONGEST,
    POINTS,
    WIDTH,
    Bars,
    Curve,
    Curves,
    Figure,
    Part,
    in_words,
    save_figure,
    ticks,
)

NAMES = ["LRP", "<b>&", "a" * 60]
BARS = Bars(
    "hits", NAMES, [Part("", "one", [0.5, 1.0, 0.0])], [0.4, 0.9, 0.0], [0.6, 1.0, 0.1], [0, 0, 1]
)
CURVES = Curves("loss", "step", [Curve("training", "one", [1, 2, 3], [3.0, 2.0, 1.0])])


def marks(panel: Bars | Curves, tag: str) -> list[dict[str, str]]:
    root = ET.fromstring(Figure("f", [panel]).drawings[0])
    return [dict(one.attrib) for one in root.iter(tag)]


def test_bars_are_as_long_as_their_values() -> None:
    wide = [float(one["width"]) for one in marks(BARS, "rect")]
    assert wide[1] == pytest.approx(2 * wide[0], abs=0.2)
    assert len(wide) == 2  # nothing is drawn of nothing


def test_parts_of_a_bar_stand_end_to_end_and_are_told_apart() -> None:
    stacked = Bars("s", ["a"], [Part("x", "one", [0.25]), Part("y", "two", [0.5])])
    first, second, *keys = marks(stacked, "rect")
    end = float(first["x"]) + float(first["width"])
    assert float(second["x"]) == pytest.approx(end, abs=0.2)
    assert len(keys) == 2


def test_a_curve_falls_where_its_values_do_and_long_ones_are_thinned() -> None:
    heights = [float(one["cy"]) for one in marks(CURVES, "circle")]
    assert heights == sorted(heights)
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    long = Curves("l", "step", [Curve("", "muted", range(9000), range(9000), thin=True)])
    (path,) = marks(long, "path")
    assert path["d"].count("L") < POINTS


@pytest.mark.parametrize("panel", [BARS, CURVES, Curves("none", "step", [])])
def test_no_text_leaves_its_panel_or_becomes_markup(panel: Bars | Curves) -> None:
    for text in ET.fromstring(Figure("f", [panel]).drawings[0]).iter("{*}text"):
        long = 7.5 * len(text.text or "")
        at = float(text.attrib["x"])
        left = at - long * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
        assert left >= -LONGEST
        assert left + long <= WIDTH + LONGEST


def test_who_does_not_see_a_chart_hears_its_numbers() -> None:
    assert in_words(CURVES) == "loss: training from 3 to 1"
    assert in_words(BARS).startswith("hits: LRP 0.50; <b>& 1.00")
    assert in_words(Curves("none", "step", [])) == "none: nothing to draw"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3, 1e-4), (5, 5), (0.00012, 0.00013), (0, 1e6)]
)
def test_ticks_are_few_round_numbers_within_the_axis(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 5
    assert all(low - 1e-9 <= one <= high + 1e-9 for one in found)
    assert all(len(f"{one:g}") <= 9 for one in found)


def test_a_figure_is_one_file_whose_bytes_are_always_the_same(tmp_path: Path) -> None:
    figure = Figure("all & one", [BARS, CURVES, BARS, CURVES])
    for name in ("one.svg", "two.svg"):
        save_figure(figure, tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert len(re.findall("<g ", text)) == 4
    assert ET.fromstring(text).attrib["width"] == str(3 * WIDTH)
