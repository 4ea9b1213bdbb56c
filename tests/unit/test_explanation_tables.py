"""One table of all explanations, what LRP fine-tuning changed, and what explaining cost."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from capscope.explain.stopwatch import Stopwatch
from capscope.report.explanations import OVERVIEW, SHOWN, explanation_tables
from capscope.report.matrix import matrix
from capscope.report.results import Results, RunResults
from capscope.report.run_time import run_times, write_run_times
from capscope.report.stages import stage_tables
from capscope.report.table import write_table

MEASURED = ["explainer", "resolution", "word_kind", "split", "measure", "value", "low", "high", "n"]


def run_of(folder: Path, stage: str, seed: int, benchmarks: dict[str, pd.DataFrame]) -> RunResults:
    return RunResults(folder, "gridtd", stage, seed, {}, benchmarks)


def results_of(folder: Path, runs: list[RunResults], **tables: pd.DataFrame) -> Results:
    empty = {name: pd.DataFrame() for name in ("captions", "per_image", "comparisons", "seeds")}
    return Results(
        folder=folder,
        dataset="toy",
        **(empty | tables),
        published=pd.DataFrame(),
        runs=tuple(runs),
        titles={"lrp": "LRP", "attention": "attention"},
        controls=frozenset({"random"}),
    )


def benchmarks(value: float) -> dict[str, pd.DataFrame]:
    """Return one row for each column of the overview and explainer, and rows that it has not."""
    frames: dict[str, list[list[object]]] = {name: [] for name in SHOWN}
    for place, column in enumerate(OVERVIEW):
        for explainer in ("lrp", "attention", "random"):
            if explainer == "attention" and column.resolution == "words":
                continue
            found = value + place / 100
            key = [explainer, column.resolution, column.word_kind, "test", column.measure]
            frames[column.benchmark].append([*key, found, found - 0.1, found + 0.1, 50])
    extra = ["captioner", "words", "noun", "test", "hallucinated", 0.02, 0.01, 0.03, 50]
    frames["hallucination"].append(extra)
    return {name: pd.DataFrame(rows, columns=MEASURED) for name, rows in frames.items()}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    runs = [run_of(tmp_path / "a", "xe", 1, benchmarks(0.5))]
    return results_of(tmp_path, [*runs, run_of(tmp_path / "b", "lrp_xe", 1, benchmarks(0.6))])


def test_the_overview_has_a_row_for_every_captioner_and_explainer(
    results: Results, tmp_path: Path
) -> None:
    overview = explanation_tables(results)[0]
    assert overview.name == "matrix_test"
    assert not overview.run
    cells = overview.cells
    assert len(cells) == 6
    assert set(cells["captioner"]) == {"gridtd xe (seed 1)", "gridtd lrp_xe (seed 1)"}
    assert list(cells.columns) == ["captioner", "explainer", *(c.heading for c in OVERVIEW)]
    lrp = cells[cells["explainer"] == "LRP"].iloc[0]
    assert lrp["hit"] == "0.50 [0.40, 0.60]"
    assert lrp["deletion"] == f"{0.5 + 5 / 100:.2f} [0.45, 0.65]"
    assert cells[cells["explainer"] == "attention"]["word drop"].tolist() == ["-", "-"]
    assert "lower is better" in overview.definitions["deletion"]
    write_table(overview, tmp_path)
    assert len(pd.read_csv(tmp_path / "matrix_test.csv")) == len(cells)
    assert "\\begin{tabular}" in (tmp_path / "matrix_test.tex").read_text()


def test_the_matrix_has_every_measurement_of_every_run(results: Results) -> None:
    found = matrix(results)
    rows = sum(len(frame) for run in results.runs for frame in run.benchmarks.values())
    assert len(found) == rows
    assert {"system", "stage", "seed", "benchmark", "value", "low", "high"} <= set(found.columns)
    assert set(found[found["control"]]["explainer"]) == {"random"}


def test_tables_of_single_runs_are_left_to_the_files_where_there_are_several(
    results: Results,
) -> None:
    details = [table for table in explanation_tables(results) if table.run]
    measured = [frame for frame in benchmarks(0.5).values() if len(frame)]
    assert len(details) == 2 * len(measured)
    assert {table.run.removesuffix("_seed1") for table in details} == {"gridtd_xe", "gridtd_lrp_xe"}
    correctness = next(t for t in details if t.name.endswith("correctness_test"))
    assert correctness.title.endswith(": gridtd xe (seed 1)")


def test_a_benchmark_that_was_not_run_has_no_column(tmp_path: Path) -> None:
    found = benchmarks(0.5)
    del found["removal"], found["deletion"]
    run = run_of(tmp_path, "xe", 1, found)
    overview = explanation_tables(results_of(tmp_path, [run]))[0]
    assert "cause" not in overview.cells.columns
    assert "insertion" not in overview.cells.columns
    assert explanation_tables(results_of(tmp_path, [])) == []


def compared(metric: str, first: str, second: str, difference: float, direction: str) -> dict:
    return {
        "dataset": "toy",
        "split": "test",
        "metric": metric,
        "first": first,
        "second": second,
        "first_seeds": 2,
        "second_seeds": 2,
        "difference": difference,
        "low": difference - 0.01,
        "high": difference + 0.03,
        "p_bootstrap": 0.02,
        "t": 2.0,
        "p_t_test": 0.04,
        "images": 10,
        "direction": direction,
    }


def scored(stage: str, seed: int, metric: str, value: float) -> dict:
    key = {"system": "gridtd", "stage": stage, "seed": str(seed), "split": "test"}
    return key | {"metric": metric, "value": value}


def test_stages_are_compared_from_before_to_after_whatever_their_order(tmp_path: Path) -> None:
    captions = [
        scored(stage, seed, metric, value + gain * (stage == "lrp_xe") * (1 if seed == 1 else -1))
        for stage in ("xe", "lrp_xe")
        for seed in (1, 2)
        for metric, value, gain in (("word_precision@10", 0.8, 0.05), ("CHAIR-i", 0.1, 0.02))
    ]
    comparisons = [
        compared("CHAIR-i", "gridtd xe", "gridtd lrp_xe", 0.02, "lower"),
        compared("word_precision@10", "gridtd xe", "gridtd lrp_xe", -0.05, "higher"),
        compared("word_precision", "gridtd lrp_xe", "gridtd xe", 0.01, "higher"),
        compared("colour_accuracy", "gridtd xe", "gridtd lrp_xe", 0.3, "higher"),
        compared("CHAIR-i", "other xe", "gridtd lrp_xe", 9.0, "lower"),
    ]
    run = run_of(tmp_path, "xe", 1, {})
    results = results_of(
        tmp_path, [run], captions=pd.DataFrame(captions), comparisons=pd.DataFrame(comparisons)
    )
    (table,) = stage_tables(results)
    assert table.tidy is not None
    assert table.tidy["metric"].tolist() == ["word_precision", "word_precision@10", "CHAIR-i"]
    rows = table.tidy.set_index("metric")
    assert rows.loc["word_precision@10", "difference"] == pytest.approx(0.05)
    assert rows.loc["word_precision@10", "low"] == pytest.approx(0.02)
    assert rows.loc["word_precision@10", "high"] == pytest.approx(0.06)
    assert rows.loc["word_precision", "difference"] == pytest.approx(0.01)
    assert rows.loc["word_precision@10", "better_seeds"] == 1
    assert rows.loc["CHAIR-i", "difference"] == pytest.approx(-0.02)
    assert rows.loc["CHAIR-i", "better_seeds"] == 1  # lower is better
    cells = table.cells.set_index("metric")
    assert cells.loc["word_precision@10", "stages"] == "xe to lrp_xe"
    assert cells.loc["word_precision@10", "difference"] == "+0.050 [+0.020, +0.060]"
    assert cells.loc["CHAIR-i", "better in seeds"] == "1 of 2"


def test_without_lrp_stages_there_is_no_such_table(tmp_path: Path) -> None:
    run = run_of(tmp_path, "xe", 1, {})
    only = pd.DataFrame([compared("CIDEr", "gridtd xe", "other xe", 0.1, "higher")])
    captions = pd.DataFrame([scored("xe", 1, "CIDEr", 1.0)])
    assert list(stage_tables(results_of(tmp_path, [run]))) == []
    assert (
        list(stage_tables(results_of(tmp_path, [run], captions=captions, comparisons=only))) == []
    )


def test_run_times_are_collected_beside_the_results(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "relevance"
    logs.mkdir(parents=True)
    watch = Stopwatch()
    for words in (3, 4):
        with watch.explaining(words):
            sum(range(20_000))
    times = watch.to_json()
    assert times["words"] == 7
    assert times["cpu_ms_per_word"] == pytest.approx(1000 * watch.cpu_seconds / 7, abs=1e-3)
    assert Stopwatch().to_json()["cpu_ms_per_word"] is None
    (logs / "gridtd-xe-seed1-test.json").write_text(json.dumps({"lrp": times}))
    (logs / "gridtd-xe-seed11-test.json").write_text(json.dumps({"lrp": times}))
    results = results_of(tmp_path, [run_of(tmp_path, "xe", 1, {})])
    path = write_run_times(run_times(results), tmp_path / "logs")
    assert path is not None
    found = pd.read_csv(path)
    assert found[["seed", "split", "explainer", "words"]].values.tolist() == [[1, "test", "lrp", 7]]
    (logs / "gridtd-xe-seed1-test.json").unlink()
    assert write_run_times(run_times(results), tmp_path / "elsewhere") is None
    assert not (tmp_path / "elsewhere").exists()
