"""A file that keeps its reader busy is given up, not waited for."""

import subprocess

import pytest

from capscope import tensors
from capscope.errors import CapscopeError
from capscope.tensors import read_foreign


@pytest.mark.parametrize("name", ["coco.pt", "features.h5"])
def test_a_reader_that_takes_too_long_is_ended(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    begun = []

    def run(command, **options):
        begun.append(options["timeout"])
        return original(["sleep", "60"], **options | {"timeout": 0.1})

    original = subprocess.run
    monkeypatch.setattr(tensors.subprocess, "run", run)
    with pytest.raises(CapscopeError, match=rf"{name}: reading it was given up"):
        read_foreign(path)
    assert begun == [tensors.FOREIGN_SECONDS]
