"""A product has one writer at a time; a dead one is followed, on this machine and on others."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from capscope import lock
from capscope.errors import CapscopeError
from capscope.lock import boot_id, one_writer

HOLDER = """
import os, sys, time
from pathlib import Path
from capscope.lock import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def product(tmp_path):
    return tmp_path / "product"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "SILENCE", 0.3)


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that knows no locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def left_by(product, **holder):
    """Leave the lock of a writer that did not let go."""
    here = {"pid": 1, "host": lock.socket.gethostname(), "boot_id": boot_id()}
    path = product.with_name(".product.lock")
    path.write_text(json.dumps({**here, **holder}))
    return path


def refused(product):
    held = one_writer(product)
    with pytest.raises(CapscopeError, match="product is being written by another run") as error:
        held.__enter__()
    return str(error.value)


def start(product):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(product)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_writer_stops_and_says_who_the_first_is_and_a_killed_one_is_followed(product):
    holder = start(product)
    try:
        assert f"process {holder.pid} on " in refused(product)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with one_writer(product):
        written = json.loads(product.with_name(".product.lock").read_text())
        assert written["pid"] == os.getpid()
    assert list(product.parent.iterdir()) == []


def test_the_lock_goes_with_an_error_too(product):
    with pytest.raises(ValueError, match="x"), one_writer(product):
        raise ValueError("x")
    assert list(product.parent.iterdir()) == []


def test_products_side_by_side_have_writers_of_their_own(product):
    with one_writer(product), one_writer(product.with_name("other")):
        pass


def test_a_holder_on_another_machine_is_believed_alive_while_it_gives_signs_of_life(product, quick):
    path, over = left_by(product, host="elsewhere"), threading.Event()

    def live():
        while not over.wait(0.02):
            os.utime(path)

    living = threading.Thread(target=live)
    living.start()
    try:
        assert "on elsewhere" in refused(product)
    finally:
        over.set()
        living.join()


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"boot_id": "before"}])
def test_a_silent_holder_on_another_machine_is_followed(product, quick, other):
    left_by(product, **other)
    begun = time.monotonic()
    with one_writer(product):
        assert time.monotonic() - begun >= lock.SILENCE


def test_a_holder_gives_signs_of_life(product, quick):
    with one_writer(product):
        path = product.with_name(".product.lock")
        os.utime(path, (0, 0))
        end = time.monotonic() + 10
        while not path.stat().st_mtime and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime


def test_where_the_kernel_knows_no_locks_the_process_is_looked_for(product, without_locks):
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left_by(product, pid=alive.pid)
    assert f"process {alive.pid}" in refused(product)
    alive.communicate()
    with one_writer(product):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}'])
def test_a_damaged_lock_of_nobody_is_taken(product, content):
    product.with_name(".product.lock").write_bytes(content)
    with one_writer(product):
        pass
