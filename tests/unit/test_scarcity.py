"""Full disks, closed folders and little memory end a command in order, and nothing is lost."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from small_disk import files_of_at_most
from tiny_data import tiny_folders, tiny_params

from capscope import cli, lock
from capscope.errors import CapscopeError
from capscope.files import MANIFEST
from capscope.lock import one_writer
from capscope.training.loop import Trainer
from capscope.training.run import train_run


def train(out: Path, folders: dict[str, Path], params) -> None:
    arguments = [folders["data"], folders["vocabulary"], folders["features"], params]
    train_run(out, *arguments, system="gridtd", stage="xe", seed=1)


@pytest.fixture(scope="module")
def params():
    return tiny_params(checkpoint_seconds=0.001)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, params):
    return tiny_folders(tmp_path_factory.mktemp("tiny"), params)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class StoppedError(Exception):
    """The training stops here."""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_and_the_training_goes_on_when_there_is_room(
    tmp_path, folders, params, monkeypatch
):
    train(tmp_path / "whole", folders, params)
    original = Trainer._step

    def stops(self, batch):
        if self.progress.step == 3:
            raise StoppedError
        return original(self, batch)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stops)
        with pytest.raises(StoppedError):
            train(out, folders, params)
    before = content(out / "state")
    full = "cannot write .*state.safetensors: File too large. Free space"
    with pytest.raises(CapscopeError, match=full), files_of_at_most(20_000):
        train(out, folders, params)
    assert content(out / "state") == before
    assert not (out / MANIFEST).exists()
    train(out, folders, params)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_to_is_named_before_any_work(
    tmp_path, monkeypatch, capsys, code
):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock.os, "open", refuse)
    out = str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["capscope", "report", "--results", "x", "--out", out])
    with pytest.raises(SystemExit) as end:
        cli.main()
    monkeypatch.undo()
    assert end.value.code == 2
    assert f"cannot write {out}: {os.strerror(code)}" in capsys.readouterr().err


def too_much_for_torch():
    torch.empty(1 << 55)


def too_much_for_numpy():
    np.empty(1 << 55)


def too_much_for_python():
    bytearray(1 << 60)


@pytest.mark.parametrize(
    "demand",
    [too_much_for_torch, too_much_for_numpy, too_much_for_python],
)
def test_a_lack_of_memory_is_one_message(tmp_path, monkeypatch, capsys, demand):
    @click.command()
    def command():
        with one_writer(tmp_path / "product"):
            demand()

    monkeypatch.setattr(cli, "capscope", command)
    monkeypatch.setattr(sys, "argv", ["capscope"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "there is not enough memory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_failures_keep_their_traceback(monkeypatch):
    @click.command()
    def command():
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "capscope", command)
    monkeypatch.setattr(sys, "argv", ["capscope"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()
