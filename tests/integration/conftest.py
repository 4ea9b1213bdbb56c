"""A finished workflow that the tests share, and the record of what the long ones survived."""

import fcntl
import os
import shutil

import pytest
import reliability
from project import Project, make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project whose workflow has run to its end; tests leave its results as they are.

    Test processes that run side by side wait for the first of them, and take copies.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made, log = shared / "finished", shared / "finished.log"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            log.write_text(make_project(made).snakemake("all").stdout, "utf-8")
    project = Project(tmp_path_factory.mktemp("workflow") / "project")
    shutil.copytree(made, project.folder)
    project.log = log.read_text("utf-8")
    return project


def pytest_sessionfinish():
    """Write down what the long tests survived."""
    reliability.write_recorded()
