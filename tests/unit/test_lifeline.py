"""Processes end with those that they work for, however those end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capscope import lifeline
from capscope.lifeline import tied

JOB = """
import sys, time
from capscope.lifeline import end_with_workflow
end_with_workflow()
print("ready", flush=True)
try:
    time.sleep(60)
finally:
    open(sys.argv[1], "w").write("in order")
"""
PARENT = """
import subprocess, sys, time
from capscope.lifeline import tied
child = subprocess.Popen(tied([sys.executable, "-c", "import time; time.sleep(60)"]))
print(child.pid, flush=True)
time.sleep(60)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_running(pid)


def job(tmp_path, workflow, **environment):
    """Start a job of a workflow with such a process id."""
    started = subprocess.Popen(
        [sys.executable, "-c", JOB, str(tmp_path / "left")],
        env={**os.environ, lifeline.WORKFLOW: workflow, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline() == "ready\n"
    return started


def test_a_job_cleans_up_and_ends_when_its_workflow_is_killed(tmp_path):
    workflow = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = job(tmp_path, str(workflow.pid))
    time.sleep(0.1)
    assert started.poll() is None
    workflow.kill()
    workflow.wait()
    assert started.wait(10) == 128 + signal.SIGTERM
    assert (tmp_path / "left").read_text() == "in order"


def test_a_job_whose_workflow_is_gone_already_ends(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    started = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path / "left")],
        env={**os.environ, lifeline.WORKFLOW: str(gone.pid)},
        timeout=10,
        capture_output=True,
    )
    assert started.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("workflow", ["", "0", "1", "none"])
def test_a_job_of_nobody_goes_on(tmp_path, workflow):
    started = job(tmp_path, workflow)
    time.sleep(0.1)
    assert started.poll() is None
    started.terminate()
    assert started.wait(10) == 128 + signal.SIGTERM
    assert (tmp_path / "left").read_text() == "in order"


def test_without_handles_of_processes_the_workflow_is_looked_for(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr(lifeline, "_POLL", 0.01)
    short = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])
    waiting = lifeline.threading.Thread(target=lifeline._await_end, args=(short.pid,))
    waiting.start()
    short.wait()
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties processes on Linux only")
def test_a_tied_command_is_killed_with_the_process_that_started_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert ends(child)


def test_a_command_that_does_not_exist_is_said_to_be_missing():
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        tied(["no-such-command", "x"])
