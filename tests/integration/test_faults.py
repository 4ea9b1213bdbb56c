"""The workflow is killed and its files are damaged: the results are right, or there are none.

`make test` kills a few times; `make test-long` some hundred times, and writes what survived to
``results/reliability.csv``.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import make_project
from reliability import DAMAGED, EVENTS, OBSTACLES, STEPS, WORKFLOW, record

HERE = Path(__file__).parent
STRIDE = 4
"""Of the moments at which a step touches a file, each of so many kills it in the long test."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
long = pytest.mark.long


def program(name, *arguments):
    """Run one of the programs beside this file; return what it prints."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished workflow, made by the programs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    made = make_project(tmp_path_factory.mktemp("faults") / "project")
    program("kill_steps.py", made.folder, 0, 0, 0)
    return made


def survived(kill):
    """Say whether all came out the same, nothing was left running, and no more was done again."""
    at_most_one_step = kill["redone"] <= 1  # a checkpoint is written each step
    return not kill["different"] and not kill["orphans"] and at_most_one_step


def found(damage):
    """Say whether a reader stopped with a message, if there is one, and `verify` told."""
    return damage["status"] in (2, None) and bool(damage["problems"])


def test_steps_that_are_killed_end_with_the_same_bytes_and_leave_no_process(project):
    kills = program("kill_steps.py", project.folder, 1, 1, 90)
    assert len(kills) >= 20
    assert [kill for kill in kills if not survived(kill)] == []


@long
def test_steps_that_are_killed_hundreds_of_times_end_with_the_same_bytes(project):
    kills = program("kill_steps.py", project.folder, 2, 18, 0)
    record(STEPS, [(kill["step"], kill["how"], survived(kill)) for kill in kills])
    assert len(kills) >= 200
    assert [kill for kill in kills if not survived(kill)] == []


@long
def test_steps_that_are_killed_wherever_they_touch_a_file_end_with_the_same_bytes(project):
    kills = program("kill_steps.py", project.folder, 3, 0, STRIDE)
    record(EVENTS, [(kill["step"], kill["how"], survived(kill)) for kill in kills])
    assert [kill for kill in kills if not survived(kill)] == []


def in_order(met):
    """Say whether a step named what was in its way, left no rubbish, and went on without it."""
    known = ("cannot write", "not enough memory", "is being written by another run")
    named = any(one in "".join(met["message"]) for one in known)
    return met["status"] == 2 and named and not met["parts"] and survived(met)


def crashed(met):
    """Say whether a native library, which did not look whether it got memory, ended the process.

    It leaves no message, but must leave nothing half-written either.
    """
    starved = met["how"] == "little memory" and met["status"] == -signal.SIGSEGV
    return starved and not met["parts"] and survived(met)


def test_a_step_that_cannot_write_says_why_and_goes_on_when_it_can(project):
    met = program("obstruct_steps.py", project.folder, 1)
    assert len(met) >= 9
    assert [one for one in met if not (in_order(one) or crashed(one))] == []


@long
def test_steps_that_meet_any_obstacle_say_so_and_go_on_without_it(project):
    met = program("obstruct_steps.py", project.folder, 7)
    record(OBSTACLES, [(one["step"], one["how"], in_order(one)) for one in met])
    assert [one for one in met if not in_order(one)] == []


def test_a_damaged_file_is_found_before_it_is_used(project):
    damages = program("damage_steps.py", project.folder, 1, 1)
    assert {one["manner"] for one in damages} == {"flip", "truncate", "zero", "empty", "lengthen"}
    assert [one for one in damages if not found(one)] == []


@long
def test_files_damaged_in_every_manner_are_found_before_they_are_used(project):
    damages = program("damage_steps.py", project.folder, 2, 5)
    record(DAMAGED, [(one["step"], one["manner"], found(one)) for one in damages])
    assert [one for one in damages if not found(one)] == []


def processes_in(folder):
    """Return the processes that work in a folder, with their commands."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            inside = (entry / "cwd").readlink() == folder
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if inside and not zombie:
            found[int(entry.name)] = command.replace("\0", " ").strip()
    return found


def at_work(project):
    """Return the jobs of capscope that work in a project."""
    return [one for one in processes_in(project.folder).values() if "bin/capscope " in one]


def contents(project, product):
    """Return the bytes and the times of the files that a step made."""
    files = [path for path in (project.folder / TOP).glob(product) if path.is_file()]
    return {path: (path.read_bytes(), path.stat()) for path in files}


def kill_snakemake(project, target, how, whole_group, moment):
    """Kill a Snakemake at work on a target, and finish it.

    Parameters
    ----------
    moment : float
        Of the time that its job takes, between 0 and 1.

    Returns
    -------
    left : list of str
        Commands of the processes that outlived it.
    different : list of Path
        Files that are not those of an uninterrupted workflow.
    """
    asked, product = TARGETS[target]
    before = contents(project, product)
    for path in before:
        path.unlink()
    command = ["--rerun-triggers", "mtime", "--", str(TOP / asked)]
    started = subprocess.Popen(
        ["snakemake", "--cores", "2", *command],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not at_work(project) and started.poll() is None:
        time.sleep(0.02)
    time.sleep(moment * SECONDS)
    (os.killpg if whole_group else os.kill)(started.pid, how)
    started.wait()
    end = time.monotonic() + 30
    while (left := processes_in(project.folder)) and time.monotonic() < end:
        time.sleep(0.05)
    project.snakemake(*command)
    after = contents(project, product)
    for path, (_, stat) in before.items():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # what was made of it stays newer
    different = [
        path
        for path in before.keys() | after.keys()
        if before.get(path, [None])[0] != after.get(path, [None])[0]
    ]
    return list(left.values()), different


TOP, RUN = Path("results/smoke"), "runs/gridtd/xe/seed1"
TARGETS = {
    "features": ("features/grid/manifest.json", "features/grid/*"),
    "train": (f"{RUN}/manifest.json", f"{RUN}/*"),
    "decode": (f"{RUN}/decoded/test.json", f"{RUN}/decoded/*"),
    "relevance": (f"{RUN}/relevance/test.json", f"{RUN}/relevance/**/*"),
    "evaluate": ("scores/captions.csv", "scores/*"),
}
"""What Snakemake is asked for, and the files that its job writes."""
SECONDS = 6.0
"""That each of these jobs takes, about."""


@pytest.mark.parametrize(
    ("target", "how", "whole_group"),
    [("train", signal.SIGKILL, False), ("features", signal.SIGTERM, True)],
)
def test_a_killed_snakemake_leaves_no_job_and_the_next_one_goes_on(
    project, target, how, whole_group
):
    assert kill_snakemake(project, target, how, whole_group, 0.8) == ([], [])


@long
def test_a_snakemake_that_is_killed_often_leaves_no_job_and_the_next_one_goes_on(project):
    generator, outcomes = random.Random(1), []
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        for whole_group, of in ((False, "Snakemake alone"), (True, "Snakemake and its jobs")):
            for target in TARGETS:
                moment = generator.random()
                came = kill_snakemake(project, target, how, whole_group, moment)
                outcomes.append((of, how.name, came == ([], []), target, came))
    record(WORKFLOW, [outcome[:3] for outcome in outcomes])
    assert [outcome for outcome in outcomes if not outcome[2]] == []


def test_dvc_stops_while_snakemake_is_at_work_and_says_so(project):
    manifest = project.folder / TOP / RUN / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, "results/smoke"],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        done = project.run("dvc", "repro", "runs", "--single-item", "--force", check=False)
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
