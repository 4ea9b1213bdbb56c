"""Tensors on disk, and checkpoints from elsewhere."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from capscope.errors import CapscopeError
from capscope.tensors import fit, read_foreign, read_metadata, read_tensors, write_tensors


def test_tensors_and_texts_come_back_and_the_same_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 4).T, "a": torch.arange(5), "c": torch.tensor(2.5)}
    for name in ("one", "two"):
        write_tensors(tmp_path / name, tensors, {"key": "é\n"})
    found = read_tensors(tmp_path / "one")
    assert set(found) == set(tensors)
    assert all(found[name].equal(tensor) for name, tensor in tensors.items())
    assert read_metadata(tmp_path / "one") == {"key": "é\n"}
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CapscopeError, match=r"x\.safetensors is not a valid safetensors file"):
        read_tensors(path)
    with pytest.raises(CapscopeError, match=r"y\.safetensors does not exist"):
        read_tensors(tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "missing bias"),
        ({"more": torch.zeros(1)}, "unknown more"),
        ({"weight": torch.zeros(3, 2)}, r"weight has shape \(3, 2\), expected \(2, 3\)"),
        ({"bias": torch.tensor([0.0, torch.nan])}, "bias is not finite"),
    ],
)
def test_weights_that_do_not_fit_name_the_tensor(change: dict[str, Any], message: str) -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    state = {k: v for k, v in {**layer.state_dict(), **change}.items() if v is not None}
    state["weight"] = state["weight"] + 1
    with pytest.raises(CapscopeError, match=f"weights there do not fit: .*{message}"):
        fit(layer, state, "there")
    assert layer.weight.equal(before)


@pytest.mark.slow
def test_a_checkpoint_comes_back_as_plain_data_without_its_optimiser(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    shared = torch.arange(6.0)
    checkpoint = {
        "epoch": 3,
        "cider": 1.25,
        "names": ["a", ("b", None, True)],
        "state_dict": OrderedDict(layer.state_dict()),
        "views": [shared[:3], shared.view(2, 3).T],
        "by_number": {7: torch.tensor(1, dtype=torch.int64)},
        "optimizer": optimiser,
        "optimizer_state": optimiser.state_dict(),
    }
    for zipped in (True, False):
        path = tmp_path / "checkpoint.pth"
        torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
        found = read_foreign(path)
        assert found["epoch"] == 3
        assert found["cider"] == 1.25
        assert found["names"] == ["a", ["b", None, True]]
        assert found["optimizer"] is None
        assert found["by_number"][7].item() == 1
        assert found["views"][1].equal(shared.view(2, 3).T)
        assert all(found["state_dict"][k].equal(v) for k, v in layer.state_dict().items())
        moments = optimiser.state_dict()["state"][0]["exp_avg"]
        assert found["optimizer_state"]["state"][0]["exp_avg"].equal(moments)


class _Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("container", ["torch", "pickle", "optimiser"])
@pytest.mark.slow
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, container: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "x.pth"
    if container == "pickle":
        path.write_bytes(pickle.dumps({"a": _Canary(canary)}))
    elif container == "torch":
        torch.save({"a": torch.zeros(2), "b": _Canary(canary)}, path)
    else:
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
        optimiser.defaults["hook"] = _Canary(canary)
        torch.save({"optimizer": optimiser}, path)
    with pytest.raises(CapscopeError, match=r"x\.pth was not loaded: .*can run code"):
        read_foreign(path)
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", "half"])
@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, str):
        torch.save({"a": torch.zeros(1000)}, path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(CapscopeError, match=r"x\.pth was not loaded: "):
        read_foreign(path)


@pytest.mark.slow
def test_a_checkpoint_that_swells_is_given_up(tmp_path: Path) -> None:
    """A compressed archive of zeros, a few megabytes on disk and gigabytes in memory."""
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"a": torch.zeros(1)}, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            with target.open(name, "w") as entry:
                entry.write(source.read(name))
                if name.endswith("data/0"):
                    for _ in range(48):
                        entry.write(bytes(1 << 25))
    assert bomb.stat().st_size < 1 << 22
    with pytest.raises(CapscopeError, match=r"bomb\.pth was not loaded: "):
        read_foreign(bomb)


def test_several_texts_give_the_same_bytes_each_time(tmp_path: Path) -> None:
    texts = {"key": "1", "rows": "2", "more": "3"}
    for number in range(8):
        write_tensors(tmp_path / str(number), {"a": torch.zeros(2)}, texts)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_no_byte_of_a_file_of_ours_can_change_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.randn(2, 3), "b": torch.arange(3)}
    write_tensors(path, tensors, {"key": "value"})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found, texts = read_tensors(path), read_metadata(path)
        except CapscopeError:
            continue
        assert texts in ({"key": "value"}, {})
        assert found.keys() == tensors.keys()
        assert all(found[name].equal(tensor) for name, tensor in tensors.items())
