"""Processes that end with those that they work for, even if those are killed.

``python -m capscope.lifeline PID COMMAND...`` runs a command that ends with its parent, PID.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

WORKFLOW = "CAPSCOPE_WORKFLOW_PID"
"""Environment variable in which a workflow tells its jobs which process started them."""
LEAVE = 10.0
"""Seconds that a process has to clean up."""
_POLL = 1.0
_PR_SET_PDEATHSIG = 1


def end_with_workflow() -> None:
    """End this process in order, as by SIGTERM, when the workflow that started it has ended.

    The shell between them does not pass on the death of a workflow that was killed: its job would
    go on writing while the next workflow starts the same job.
    """
    signal.signal(signal.SIGTERM, _leave)
    number = os.environ.get(WORKFLOW, "")
    if number.isdigit() and int(number) > 1:
        _then_leave(lambda: _await_end(int(number)))


def end_with_parent(parent: int) -> None:
    """End this process when its parent ends: by the kernel on Linux, else by looking now and then.

    For processes that hold nothing of value: they are killed.

    Parameters
    ----------
    parent : int
        Process id of the parent, which may have ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before that
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        _then_leave(lambda: _await_other_parent(parent))


def tied(command: Sequence[str]) -> list[str]:
    """Return a command that runs `command` and ends with this process.

    Raises
    ------
    FileNotFoundError
        There is no such command.
    """
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    if sys.platform != "linux":  # elsewhere the tie would not outlast the start of the command
        return list(command)
    return [sys.executable, "-m", "capscope.lifeline", str(os.getpid()), *command]


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _then_leave(waiting: Callable[[], None]) -> None:
    """Wait in the background; then end this process, at the latest after `LEAVE` seconds."""

    def watch() -> None:
        waiting()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LEAVE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def _await_end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # not Linux, or an old one
        while is_running(pid):
            time.sleep(_POLL)
        return
    select.select([handle], [], [])


def is_running(pid: int) -> bool:
    """Say whether a process of this machine has not ended, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _await_other_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
