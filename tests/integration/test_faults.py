"""The workflow is killed and its files are damaged: the results are right, or there are none.

`make test` kills a few times; `make test-long` some hundred times, and writes what survived to
``results/reliability.csv``.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Project, make_project
from reliability import record

HERE = Path(__file__).parent
TRAINED = "results/smoke/runs/gridtd/xe/seed1/manifest.json"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
long = pytest.mark.long


def program(name, *arguments):
    """Run one of the programs beside this file; return what it prints."""
    done = subprocess.run(
        [sys.executable, str(HERE / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished workflow, made by the programs."""
    made = make_project(tmp_path_factory.mktemp("faults") / "project")
    program("kill_steps.py", made.folder, 0, 0, 0)
    return made


def check_kills(kills):
    assert [kill for kill in kills if kill["different"]] == []
    assert [kill for kill in kills if kill["orphans"]] == []
    assert [kill for kill in kills if kill["redone"] > 1] == [], "a checkpoint is written each step"


def check_damage(damages):
    assert [one for one in damages if one["status"] not in (2, None)] == []
    assert [one for one in damages if not one["problems"]] == []


def test_steps_that_are_killed_end_with_the_same_bytes_and_leave_no_process(project):
    kills = program("kill_steps.py", project.folder, 1, 13, 90)
    assert len(kills) >= 18
    check_kills(kills)


@long
def test_steps_that_are_killed_hundreds_of_times_end_with_the_same_bytes(project):
    for name, arguments in {
        "kills at random moments": (2, 200, 0),
        "kills at every file that is made, renamed or removed": (3, 0, 1),
    }.items():
        kills = program("kill_steps.py", project.folder, *arguments)
        good = [k for k in kills if not k["different"] and not k["orphans"] and k["redone"] <= 1]
        record(name, len(good), len(kills))
        check_kills(kills)


def test_a_damaged_file_is_found_before_it_is_used(project):
    damages = program("damage_steps.py", project.folder, 1, 1)
    assert {one["manner"] for one in damages} == {"flip", "truncate", "zero", "empty", "lengthen"}
    check_damage(damages)


@long
def test_files_damaged_in_every_manner_are_found_before_they_are_used(project):
    damages = program("damage_steps.py", project.folder, 2, 10)
    found = [one for one in damages if one["status"] in (2, None) and one["problems"]]
    record("damaged files found before use", len(found), len(damages))
    check_damage(damages)


def processes_in(folder):
    """Return the processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            inside = (entry / "cwd").readlink() == folder
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if inside and not zombie:
            found.append(int(entry.name))
    return found


def kill_snakemake(project, how, whole_group, wait):
    """Kill a Snakemake that trains; return the processes that are left, and finish the training."""
    run = (project.folder / TRAINED).parent
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for name in before:
        (run / name).unlink()
    started = subprocess.Popen(
        ["snakemake", "--cores", "2", "--rerun-triggers", "mtime", "--", TRAINED],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (run / "state").exists() and started.poll() is None:
        time.sleep(0.02)
    time.sleep(wait)
    (os.killpg if whole_group else os.kill)(started.pid, how)
    started.wait()
    end = time.monotonic() + 30
    while (left := processes_in(project.folder)) and time.monotonic() < end:
        time.sleep(0.05)
    project.snakemake("--rerun-triggers", "mtime", "--", TRAINED)
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    return left, [name for name in before | after if before.get(name) != after.get(name)]


@pytest.fixture(scope="module")
def workflow(project, tmp_path_factory):
    """A copy of the finished workflow, in which Snakemake has trained."""
    copy = Project(tmp_path_factory.mktemp("faults") / "workflow")
    shutil.copytree(project.folder, copy.folder)
    shutil.rmtree((copy.folder / TRAINED).parent)
    copy.snakemake("--rerun-triggers", "mtime", "--", TRAINED)
    return copy


@pytest.mark.parametrize(("how", "whole_group"), [(signal.SIGKILL, False), (signal.SIGTERM, True)])
def test_a_killed_snakemake_leaves_no_job_and_the_next_one_goes_on(workflow, how, whole_group):
    assert kill_snakemake(workflow, how, whole_group, 0.3) == ([], [])


@long
def test_a_snakemake_that_is_killed_often_leaves_no_job_and_the_next_one_goes_on(workflow):
    generator, outcomes = random.Random(1), []
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        for whole_group in (False, True):
            for _ in range(3):
                wait = generator.uniform(0.0, 1.0)
                outcomes.append(kill_snakemake(workflow, how, whole_group, wait))
    good = outcomes.count(([], []))
    record("kills of Snakemake, alone or with its jobs", good, len(outcomes))
    assert good == len(outcomes), outcomes


def test_dvc_stops_while_snakemake_is_at_work_and_says_so(workflow):
    manifest = workflow.folder / TRAINED
    content = manifest.read_bytes()
    manifest.unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, "results/smoke"],
        cwd=workflow.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        done = workflow.run("dvc", "repro", "runs", "--single-item", "--force", check=False)
    finally:
        holder.kill()
        holder.wait()
        manifest.write_bytes(content)
    assert done.returncode
    assert re.search(rf"another snakemake is at work: .*process {holder.pid} on ", done.stdout)


HOLD = """
import sys, time
from pathlib import Path
from capscope.lock import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""
