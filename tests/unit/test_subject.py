"""What rows of tables are of, as their columns and the names of their files say it."""

from pathlib import Path

import pytest

from capscope.subject import Run, subject_of

RUNS = [
    Run(system, stage, seed)
    for system in ("aoa", "aoa_regions")
    for stage in ("xe", "lrp_xe")
    for seed in ("1", "12")
]
PRODUCTS = [
    Path("results/toy/runs", run.system, run.stage, f"seed{run.seed}", part)
    for run in RUNS
    for part in (
        *("", "decoded/test.json", "relevance/lrp/shift", "relevance/test.json"),
        *("decoded/shift.json", "benchmarks/deletion.csv", "benchmarks/ground_truth.csv"),
    )
]
XE = [run for run in RUNS if run[:2] == ("aoa", "xe")]
LRP = [run for run in RUNS if run[:2] == ("aoa", "lrp_xe")]


def of(table, **row):
    return subject_of(table, row, "toy", PRODUCTS)


@pytest.mark.parametrize(
    ("table", "row", "runs"),
    [
        ("captions", {"dataset": "toy", "system": "aoa", "stage": "xe", "seed": "1"}, XE[:1]),
        ("captions", {"system": "human", "stage": "", "seed": ""}, []),
        ("captions_test", {"system": "aoa xe (seed 12)"}, XE[1:]),
        ("captions_test", {"system": "human, leave-one-out"}, []),
        ("seeds_test", {"system": "aoa xe"}, XE),
        ("seeds", {"system": "aoa", "stage": "lrp_xe"}, LRP),
        ("comparisons", {"first": "aoa xe", "second": "aoa lrp_xe"}, XE + LRP),
        ("comparisons_test", {"systems": "aoa xe - aoa lrp_xe"}, XE + LRP),
        ("stages_test", {"system": "aoa", "before": "xe", "after": "lrp_xe"}, XE + LRP),
        ("answer_fine_tuning", {"captioner": "aoa", "stages": "xe to lrp_xe"}, XE + LRP),
        ("answer_attention", {"captioner": "aoa xe"}, XE),
        (
            "matrix",
            {"system": "aoa", "captioner": "aoa_regions", "stage": "xe", "seed": "1"},
            XE[:1],
        ),
        ("matrix_test", {"captioner": "aoa lrp_xe (seed 1)", "explainer": "LRP"}, LRP[:1]),
        ("paired_tests", {"same": "aoa xe", "first": "lrp", "second": "random"}, XE),
        ("paired_tests", {"same": "lrp", "first": "aoa xe", "second": "aoa lrp_xe"}, XE + LRP),
        ("aoa_lrp_xe_seed1_deletion_test", {"explainer": "LRP"}, LRP[:1]),
        ("published", {"dataset": "elsewhere", "system": "aoa", "stage": "xe"}, []),
        ("published", {"dataset": "toy", "system": "aoa", "stage": "xe", "ours": "1"}, XE),
        ("published", {"dataset": "toy", "system": "difnet", "stage": "xe"}, []),
    ],
)
def test_a_row_is_of_the_runs_that_it_names_and_of_no_other(table, row, runs):
    assert of(table, **row).runs == frozenset(runs)


@pytest.mark.parametrize("table", ["answers", "deletion_test", "answer_explainer"])
def test_a_row_that_names_no_run_is_of_all(table):
    assert of(table, explainer="LRP", question="?").runs is None


@pytest.mark.parametrize(
    ("table", "row", "split", "benchmarks"),
    [
        ("captions_shift", {}, "shift", set()),
        ("captions", {"split": "test"}, "test", set()),
        ("published", {}, None, set()),
        ("deletion_test", {}, "test", {"deletion"}),
        ("aoa_xe_seed12_ground_truth_shift", {}, "shift", {"ground_truth"}),
        ("matrix", {"split": "shift", "benchmark": "deletion"}, "shift", {"deletion"}),
        ("matrix_test", {}, "test", None),
        ("answers", {}, None, None),
    ],
)
def test_a_row_is_of_the_split_and_the_benchmark_of_its_columns_or_of_its_file(
    table, row, split, benchmarks
):
    found = of(table, **row)
    assert (found.split, found.benchmarks) == (split, benchmarks)


def test_what_is_of_no_run_split_or_benchmark_is_of_every_row():
    data, start = Path("results/toy/data"), Path("results/toy/runs/aoa/xe/seed1")
    subject = of("aoa_lrp_xe_seed1_deletion_test")
    tuned = Path("results/toy/runs/aoa/lrp_xe/seed1")
    report = Path("results/toy/report")
    assert subject.includes(data, report)
    assert subject.includes(tuned / "benchmarks" / "deletion.csv", report)
    assert subject.includes(start, tuned), "it starts from that run"
    assert not subject.includes(start, report)
    assert not subject.includes(tuned / "benchmarks" / "ground_truth.csv", report)
    assert not subject.includes(tuned / "relevance" / "lrp" / "shift", tuned / "benchmarks")
