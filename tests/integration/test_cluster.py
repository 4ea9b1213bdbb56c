"""The workflow on a real Slurm of one node, through both cluster profiles, with jobs killed."""

import re
import shutil
import subprocess
import time

import pytest
from one_node_slurm import BINARIES, OneNodeSlurm, install
from project import Project, make_project

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
WITHOUT_ACCOUNTING = (
    "--slurm-no-account",
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=2",
)
DIVIDED = (
    *("--set-scatter", "decode=2", "relevance=2", "measure=2"),
    *("--groups", "prepare_data=prepared", "build_vocabulary=prepared", "measure_shard=measured"),
    *("--group-components", "measured=2"),
)
STATE = "results/smoke/runs/gridtd/xe/seed1/state"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    reason = install()
    if reason:
        pytest.skip(f"no Slurm: {reason}")
    with OneNodeSlurm(tmp_path_factory.mktemp("slurm") / "node") as node:
        yield node


class Submitted:
    """A snakemake that submits jobs; what is asked of it in the middle, and how it ends."""

    def __init__(self, project, slurm, profile, *arguments):
        project.environment["PATH"] += f":{BINARIES}"
        project.environment["SLURM_CONF"] = slurm.environment["SLURM_CONF"]
        self.project, self.slurm = project, slurm
        self.log = project.folder / "snakemake.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["snakemake", "--workflow-profile", f"profiles/{profile}", *arguments, "--", "all"],
                cwd=project.folder,
                env=project.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.slurm.cancel_all()

    def job(self, rule, seconds=600):
        """Wait until a job of a rule runs and return its id."""
        end = time.monotonic() + seconds
        while True:
            for comment, number in self.slurm.running().items():
                if rule in comment:
                    return number
            self.wait_a_little(end, f"no job of {rule} has run")

    def until(self, path, seconds=600):
        end = time.monotonic() + seconds
        while not (self.project.folder / path).exists():
            self.wait_a_little(end, f"{path} has not appeared")

    def wait_a_little(self, end, message):
        assert self.process.poll() is None, self.log.read_text()
        assert time.monotonic() < end, f"{message}\n{self.log.read_text()}"
        time.sleep(0.1)

    def finish(self):
        self.process.wait(900)
        assert self.process.returncode == 0, self.log.read_text()
        return self.log.read_text()


def test_a_run_on_slurm_whose_jobs_are_killed_ends_with_the_same_tables(finished, slurm, tmp_path):
    project = make_project(tmp_path / "project")
    with Submitted(project, slurm, "slurm", *WITHOUT_ACCOUNTING, *DIVIDED) as submitted:
        requeued = submitted.job("train_captioner")
        submitted.until(STATE)
        slurm.run("scontrol", "requeue", requeued)
        cancelled = submitted.job("relevance_shard")
        slurm.run("scancel", cancelled)
        log = submitted.finish()
        assert "Restarts=1" in slurm.run("scontrol", "show", "job", requeued)
    assert "Trying to restart job" in log, "the cancelled job was tried again"
    submissions = re.findall(r"has been submitted with SLURM jobid (\d+)", log)
    jobs = sum(map(int, re.findall(r"^total +(\d+)$", log, re.M)[:1]))
    grouped = 1 + 1  # data and vocabulary are one submission, two shards of benchmarks another
    assert len(set(submissions)) == jobs - len(["all"]) - grouped + len([cancelled])
    assert project.outputs() == finished.outputs()
    assert project.planned() == {}, "a local snakemake has nothing left to do"


def test_any_queue_can_run_it_by_commands_that_submit_and_ask(finished, slurm, tmp_path):
    project = Project(tmp_path / "project")
    shutil.copytree(finished.folder, project.folder)
    shutil.rmtree(project.folder / "results/smoke/runs")
    with Submitted(project, slurm, "cluster-generic") as submitted:
        number = submitted.job("train_captioner")
        submitted.until(STATE)
        slurm.run("scancel", number)
        log = submitted.finish()
    assert "Trying to restart job" in log
    assert project.outputs() == finished.outputs()
