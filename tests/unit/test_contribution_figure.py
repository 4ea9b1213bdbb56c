"""The figure of the sources of words, from small tables."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from capscope.report.contributions import FIRST, LAST, contribution_figure
from capscope.report.results import RunResults

SHARES = {"vision": 0.6, "language": 0.4, "segments": 0.25, "entropy": 3.0, "layer 0": 0.6}


def run_of(system, shares, explainer="alpha_beta_lrp"):
    kinds = ["all", "object", "function", *(f"position {t}" for t in range(1, LAST + 4))]
    rows = [
        {"explainer": explainer, "resolution": "grid", "word_kind": kind, "split": "test"}
        | {"measure": measure, "value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}
        for kind in kinds
        for measure, value in shares.items()
    ]
    tables = {"contribution": pd.DataFrame(rows)} if shares else {}
    return RunResults(Path(system), system, "xe", 1, {}, tables)


def drawn(*runs):
    results = SimpleNamespace(runs=runs, titles={"alpha_beta_lrp": "LRP (alpha-beta)"})
    figure = contribution_figure(results, runs[0])
    return figure.panels if figure else None


def test_a_run_is_drawn_over_the_others_of_its_stage_at_the_published_positions():
    vision, entropy, _, layers = drawn(
        run_of("difnet", SHARES), run_of("base", SHARES | {"vision": 0.5})
    )
    names = ["other runs", "difnet", "difnet: segments alone"]
    assert [curve.label for curve in vision.curves] == names
    for panel, values in ((vision, (0.5, 0.6, 0.25)), (entropy, (3.0, 3.0))):
        for curve, value in zip(panel.curves, values, strict=True):
            assert list(curve.x) == list(range(FIRST, LAST + 1))
            assert set(curve.y) == {value}
    assert layers.parts[0].values == [0.6]


def test_sources_of_a_word_are_stacked_and_segments_are_a_part_of_vision():
    _, _, kinds, _ = drawn(run_of("difnet", SHARES))
    assert kinds.names == ["all", "object", "function"]
    assert [part.values[0] for part in kinds.parts] == pytest.approx([0.35, 0.25, 0.4])


def test_runs_without_segments_or_without_the_benchmark_are_drawn_as_they_are():
    plain = {key: SHARES[key] for key in ("vision", "language", "entropy")}
    _, _, kinds = drawn(run_of("gridtd", plain, "lrp"), run_of("other", {}))
    assert [part.label for part in kinds.parts] == ["image", "words before"]
    assert drawn(run_of("other", {})) is None
