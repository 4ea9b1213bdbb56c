"""The whole workflow on a handful of images, and Snakemake and DVC side by side."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter

import pandas as pd
import pytest
from project import ROOT, Project

from capscope.provenance import chain_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RULES = ["decode", "evaluate", "relevance", "measure", "write_report"]


def test_the_workflow_runs_to_its_page(finished):
    results = finished.folder / "results" / "smoke"
    page = (results / "report" / "index.html").read_text("utf-8")
    assert "<html" in page
    assert len(pd.read_csv(results / "scores" / "captions.csv"))
    for log in (results / "logs").rglob("*.log"):
        assert "Traceback" not in log.read_text(), log
    done = finished.log.count("Finished jobid: ") - 1
    assert done == len(list((results / "logs").rglob("*.tsv"))), "every job but `all` is timed"


def test_every_table_leads_to_the_data_and_those_of_runs_to_their_runs(finished):
    results = finished.folder / "results" / "smoke"
    tables = [*(results / "scores").glob("*.csv"), *(results / "report" / "tables").glob("*.csv")]
    tables += results.glob("runs/*/*/*/benchmarks/*.csv")
    kinds = {}
    for table in tables:
        rows = len(pd.read_csv(table))
        for number in {1, rows} if rows else ():
            chain = chain_of(table, number)
            kinds[table.name, number == rows] = {one.content["kind"] for *_, one in chain if one}
    assert all("data" in found for found in kinds.values())
    last = {name: found for (name, is_last), found in kinds.items() if is_last}
    for name in ("captions", "seeds", "matrix", "validation", "answers"):
        assert {"run", "features", "vocabulary"} <= last[f"{name}.csv"], name


def test_nothing_is_left_to_do_after_a_run(finished):
    assert finished.planned() == {}
    assert "Nothing to be done" in finished.snakemake().stdout
    everything = finished.snakemake("--dry-run", "--forceall").stdout
    assert "write_report" in everything, "without a target all is made"


@pytest.mark.parametrize(
    ("overlay", "rules"),
    [
        ({"report": {"images": 1}}, {"write_report"}),
        ({"metrics": {"timeout": 99}}, {"evaluate", "write_report"}),
        ({"metrics": {"cache": "/somewhere"}}, set()),
        ({"benchmarks": {"sigma": 1.5}}, {"measure", "write_report"}),
        ({"explanations": {"epsilon": 0.1}}, {"relevance", "measure", "write_report"}),
        ({"decoding": {"beam": 2}}, set(RULES)),
        ({"seeds": [1, 2]}, {"train_captioner", "compare_runs", *RULES}),
        ({"systems": {"gridtd": {"xe": {"epochs": 2}}}}, {"train_captioner", *RULES}),
        (
            {"systems": {"gridtd": {"stages": ["xe", "lrp_scst"]}}},
            {"train_captioner", "compare_runs", *RULES},
        ),
        (
            {"systems": {"gridtd": {"xe": {"encoder": "fine_tuned"}}}},
            {"train_captioner", "extract_fine_tuned", *RULES},
        ),
        ({"systems": {"gridtd": {"scst": {"epochs": 3}}}}, set()),
        (
            {"systems": {"gridtd": {"vocabulary": {"min_count": 2}}}},
            {"build_vocabulary", "train_captioner", *RULES},
        ),
        ({"features": {"grid": {"batch_size": 9}}}, {"extract_grid", "train_captioner", *RULES}),
        (
            {"features": {"imported": {"grid": [{"format": "store", "path": "params.yaml"}]}}},
            {"extract_grid", "train_captioner", *RULES},
        ),
        ({"dataset": {"evaluate": ["test", "shift"]}}, set(RULES)),
        ({"benchmarks": {"measures": ["ground_truth"]}}, {"measure", "write_report"}),
        (
            {"backbone": {"epochs": 2}},
            {"train_backbone", "extract_grid", "train_captioner", *RULES},
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_changed_parameter_runs_exactly_the_rules_that_depend_on_it(finished, overlay, rules):
    assert set(finished.planned(overlay)) - {"all", "total"} == rules


def test_steps_divided_into_several_jobs_end_with_the_same_bytes(finished, tmp_path):
    counts = {"decode": 3, "relevance": 3, "measure": 3}
    scatter = ["--set-scatter", *(f"{step}={count}" for step, count in counts.items())]
    assert finished.planned(None, *scatter) == {}, "how many jobs make it is no part of a result"

    project = Project(tmp_path / "project")
    shutil.copytree(finished.folder, project.folder)
    for name in ("decoded", "relevance", "benchmarks"):
        shutil.rmtree(project.folder / "results/smoke/runs/gridtd/xe/seed1" / name)
    expected = {f"{step}_shard": count for step, count in counts.items()}
    expected |= dict.fromkeys(("decode", "relevance", "measure"), 1)
    done = project.snakemake(*scatter, "--", "all").stdout
    started = Counter(re.findall(r"^(?:local)?rule (\w+):", done, re.M))
    assert {rule: started[rule] for rule in expected} == expected
    assert not set(started) & {"extract_grid", "train_captioner"}
    assert project.outputs() == finished.outputs()
    assert project.planned() == {}


def test_damaged_records_of_snakemake_are_passed_over(finished, tmp_path):
    copy = Project(tmp_path / "project")
    shutil.copytree(finished.folder, copy.folder)
    records = [path for path in (copy.folder / ".snakemake/metadata").rglob("*") if path.is_file()]
    for number, record in enumerate(records):
        record.write_bytes((bytes(99), b"", record.read_bytes()[:50])[number % 3])
    assert records
    assert copy.planned() == {}


def test_a_wrong_parameter_stops_before_any_job_and_is_named(finished):
    (finished.folder / "overlay.yaml").write_text("decoding: {baem: 5}\n")
    done = finished.snakemake("--configfile", "overlay.yaml", "--", "all", check=False)
    assert done.returncode != 0
    assert "decoding.baem: unknown key; did you mean 'beam'?" in done.stdout


def test_the_command_of_the_readme_takes_an_overlay_before_the_target(finished):
    shutil.copyfile(ROOT / "all", finished.folder / "all")
    (finished.folder / "overlay.yaml").write_text("seeds: [1]\n")
    overlay = ["--configfile", "overlay.yaml", "all"]
    assert "Nothing to be done" in finished.snakemake("--dry-run", *overlay).stdout


def test_dvc_and_snakemake_leave_each_other_nothing_to_do(finished, tmp_path):
    before = finished.writing_times()
    first = finished.run("dvc", "repro")
    assert first.stdout.count("Nothing to be done") == 4
    assert finished.writing_times() == before
    assert "Data and pipelines are up to date" in finished.run("dvc", "repro").stdout
    assert finished.planned() == {}

    finished.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    finished.run("dvc", "push")
    finished.run("git", "add", ".")
    finished.run("git", "commit", "--quiet", "--allow-empty", "--message", "results")
    clone = Project(tmp_path / "clone")
    finished.run("git", "clone", "--quiet", ".", str(clone.folder))
    clone.run("dvc", "pull")
    clone.snakemake("--touch", "all")
    assert clone.planned() == {}
    assert "Nothing to be done" in clone.snakemake("all").stdout
    assert "Data and pipelines are up to date" in clone.run("dvc", "repro").stdout
    assert clone.outputs() == finished.outputs()


def test_a_killed_training_is_taken_up_again_and_ends_with_the_same_bytes(finished, tmp_path):
    project = Project(tmp_path / "killed")
    shutil.copytree(finished.folder, project.folder)
    run = project.folder / "results/smoke/runs/gridtd/xe/seed1"
    for name in ("manifest.json", "model.safetensors", "model.json", "metrics.csv"):
        (run / name).unlink()
    started = subprocess.Popen(
        ["snakemake", "--cores", "2", "train"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not (run / "state").exists() and started.poll() is None:
            time.sleep(0.01)
        os.killpg(started.pid, signal.SIGSTOP)  # else so short a training is over too soon
        second = project.snakemake("train", check=False)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    assert second.returncode != 0
    assert "another snakemake is at work: " in second.stdout
    assert not (run / "manifest.json").exists()
    project.snakemake("train")
    assert project.planned() == {}, "the same bytes, so nothing that follows is made again"
    assert project.outputs() == finished.outputs()
