"""Pickles of arrays, as detector weights are published: read, never unpickled."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capscope.errors import CapscopeError
from capscope.pickled_data import load_pickled_data
from capscope.tensors import read_foreign

ARRAY = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)
CONTENT = {
    "model": OrderedDict(
        [("a", ARRAY), ("fortran", np.asfortranarray(ARRAY)), ("big", ARRAY.astype(">f8"))]
    ),
    "also a": ARRAY,
    "scalar": np.float32(2.5),
    "flags": np.array([True, False]),
    "ids": np.arange(5),
    "empty": np.zeros((0, 3), np.float16),
    "__author__": "é",
    "plain": [1, -2.5, None, True, False, (1, 2, 3, 4), (), {"x": 1 << 70}, "text", b"bytes"],
}
PYTHON_2 = (
    b"\x80\x02}q\x01U\x05modelq\x02}q\x03U\x01wq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05"
    b"cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x08"
    b"U\x02f4K\x00K\x01\x87Rq\x09(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"U\x08" + np.array([[1.5, -3.25e-7]], "<f4").tobytes() + b"tbss."
)
"""``{"model": {"w": array([[1.5, -3.25e-07]], float32)}}`` as Python 2 writes it."""


def read(content: Any, protocol: int) -> Any:
    return load_pickled_data(io.BytesIO(pickle.dumps(content, protocol)))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_and_plain_data_come_back(protocol: int) -> None:
    found = read(CONTENT, protocol)
    assert list(found) == list(CONTENT)
    assert list(found["model"]) == ["a", "fortran", "big"]
    for name, expected in {**CONTENT["model"], **CONTENT}.items():
        value = {**found["model"], **found}[name]
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(value, expected)
            assert value.dtype == expected.dtype.newbyteorder("=")
    assert found["scalar"] == 2.5
    assert found["__author__"] == "é"
    listed = [list(item) if isinstance(item, tuple) else item for item in CONTENT["plain"]]
    assert found["plain"] == listed


def test_what_python_2_wrote_is_read() -> None:
    found = load_pickled_data(io.BytesIO(PYTHON_2))
    np.testing.assert_array_equal(found["model"]["w"], np.array([[1.5, -3.25e-7]], np.float32))


@pytest.mark.slow
def test_a_file_of_arrays_is_read_as_tensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": ARRAY}, "__author__": "x"}, 2))
    found = read_foreign(path)
    assert found["__author__"] == "x"
    assert found["model"]["a"].equal(torch.from_numpy(ARRAY))


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class _Hidden:
    """A pickle that hides its call as the state of an array."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("f4",), _Canary(self.path)


@pytest.mark.parametrize("canary", [_Canary, _Hidden])
@pytest.mark.parametrize("protocol", [1, 2, 4, 5])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, canary: Any, protocol: int) -> None:
    trap = tmp_path / "trap"
    content = pickle.dumps({"model": {"a": ARRAY, "b": canary(trap)}}, protocol)
    with pytest.raises(CapscopeError, match=r"can run code \((posix|nt)\.mkdir\)"):
        load_pickled_data(io.BytesIO(content))
    assert not trap.exists()


@pytest.mark.slow
def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": ARRAY, "b": _Canary(trap)}}))
    with pytest.raises(CapscopeError, match=r"weights\.pkl was not loaded: "):
        read_foreign(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        np.array([{}, None], object),
        np.array(["text"]),
        {1, 2},
        Path("x"),
        print,
        complex(1, 2),
        slice(1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused(content: object) -> None:
    for protocol in (2, 4, 5):
        with pytest.raises(CapscopeError, match="it holds"):
            read({"a": content}, protocol)


def test_a_damaged_pickle_is_an_error_that_a_user_can_read() -> None:
    whole = pickle.dumps({"model": {"a": ARRAY, "b": np.float32(1)}}, 4)
    rng = np.random.default_rng(0)
    for length in range(0, len(whole), 7):
        with pytest.raises(CapscopeError):
            load_pickled_data(io.BytesIO(whole[:length]))
    for _ in range(300):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] = rng.integers(256)
        try:
            load_pickled_data(io.BytesIO(bytes(broken)))
        except CapscopeError:
            continue


def test_lists_of_the_same_lists_take_no_more_memory_than_they_are_written_with() -> None:
    nested: list[Any] = ["leaf"]
    for _ in range(60):  # 2 to the power of 60 leaves, if each were a list of its own
        nested = [nested, nested]
    found = read({"a": nested, "b": {"c": nested}}, 2)
    assert found["a"] is found["b"]["c"]
    for _ in range(60):
        assert found["a"][0] is found["a"][1]
        found["a"] = found["a"][0]
    assert found["a"] == ["leaf"]


def test_tensors_inside_plain_data_come_back_as_arrays() -> None:
    whole = torch.arange(12).reshape(3, 4)
    content = {"a.jpg": [whole[0], whole[:, 1:3], whole.half()]}
    found = load_pickled_data(io.BytesIO(pickle.dumps(content)))
    for array, tensor in zip(found["a.jpg"], content["a.jpg"], strict=True):
        assert array.dtype == tensor.numpy().dtype
        assert array.tolist() == tensor.tolist()
    forged = pickle.dumps(whole).replace(b"K\x03K\x04\x86", b"K\x03K\x63\x86")
    assert forged != pickle.dumps(whole)
    with pytest.raises(CapscopeError, match="of 12 numbers"):
        load_pickled_data(io.BytesIO(forged))
