import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import torch
from small_disk import files_of_at_most

from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore, create_store, grid_boxes
from capscope.files import write_manifest

IDS = [40, 7, 99, 3, 12]
ATTRIBUTES = {"network": "toy", "layer": "last", "grid": [2, 3], "weights_sha256": "0", "scale": 1}


def features(count: int = len(IDS), cells: int = 6, dim: int = 8) -> torch.Tensor:
    return torch.randn(count, cells, dim, generator=torch.Generator().manual_seed(0))


def made(folder: Path, dtype: str = "float32", values: torch.Tensor | None = None) -> FeatureStore:
    values = features() if values is None else values
    with create_store(folder, IDS, cells=6, dim=8, dtype=dtype, attributes=ATTRIBUTES) as writer:
        writer.append(values[:3])
        writer.append(values[3:])
    write_manifest(folder, "features", params={})
    return FeatureStore.open(folder)


def test_features_come_back_by_image_id_in_any_order(tmp_path: Path) -> None:
    store = made(tmp_path)
    order = [3, 0, 0, 4]
    found = store.read([IDS[i] for i in order])
    torch.testing.assert_close(found.cells, features()[order], rtol=0, atol=0)
    assert store.ids.tolist() == IDS
    assert (len(store), store.dim, store.grid) == (5, 8, (2, 3))
    assert store.attributes == ATTRIBUTES
    for ids in (torch.tensor([7, 3]), np.array([7, 3]), (7, 3)):
        torch.testing.assert_close(store.read(ids).cells, features()[[1, 3]], rtol=0, atol=0)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    found = made(tmp_path, "float16").read(IDS).cells
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, features().half().float(), rtol=0, atol=0)


def test_boxes_are_the_cells_row_by_row(tmp_path: Path) -> None:
    boxes = made(tmp_path).read(IDS[:2]).boxes
    assert boxes is not None
    assert boxes.shape == (2, 6, 4)
    torch.testing.assert_close(boxes[0], grid_boxes((2, 3)))
    torch.testing.assert_close(boxes[1, 4], torch.tensor([1 / 3, 0.5, 2 / 3, 1]))


def test_the_file_is_ordinary_hdf5_with_contiguous_data(tmp_path: Path) -> None:
    made(tmp_path, "float16")
    with h5py.File(tmp_path / "features.h5") as file:
        assert file["grid"].chunks is None
        assert file["ids"][()].tolist() == IDS
        np.testing.assert_array_equal(file["grid"][()], features().half().numpy())
        assert json.loads(file.attrs["attributes"]) == ATTRIBUTES


def test_the_same_features_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made(tmp_path / name)
    one, two = (tmp_path / name / "features.h5" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_what_is_read_can_be_changed_without_touching_the_file(tmp_path: Path) -> None:
    store = made(tmp_path)
    store.read(IDS).cells.zero_()
    torch.testing.assert_close(store.read(IDS).cells, features(), rtol=0, atol=0)


def test_an_image_without_features_is_named(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert 99 in store
    assert not any(image_id in store for image_id in (0, 50, 100))
    for unknown in (0, 50, 100):
        with pytest.raises(CapscopeError, match=f"no features of image {unknown} "):
            store.read([7, unknown])


def test_features_of_another_kind_are_refused(tmp_path: Path) -> None:
    store = made(tmp_path)
    store.check_same_kind(ATTRIBUTES, "the run")
    with pytest.raises(CapscopeError, match="network = 'toy', but the run was trained with 'vgg'"):
        store.check_same_kind({**ATTRIBUTES, "network": "vgg"}, "the run")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_value_that_is_not_finite_or_overflows_names_the_image(
    tmp_path: Path, value: float
) -> None:
    values = features()
    values[1, 2, 3] = value
    with pytest.raises(CapscopeError, match=r"image 7: .*float16"):
        made(tmp_path, "float16", values)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_keeps_the_store_that_was_there(tmp_path: Path) -> None:
    made(tmp_path)
    before = (tmp_path / "features.h5").read_bytes()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_many(tmp_path, interrupted)
    assert (tmp_path / "features.h5").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.h5", "manifest.json"]


@pytest.mark.parametrize("count", [3, 8])
def test_too_few_or_too_many_features_are_never_a_store(tmp_path: Path, count: int) -> None:
    with (
        pytest.raises(ValueError, match=r"were written|do not fit"),
        create_store(tmp_path, IDS, cells=6, dim=8, dtype="float32", attributes={}) as writer,
    ):
        writer.append(features(count))
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_swallowed_is_found_before_the_rename(tmp_path: Path) -> None:

    def swallow() -> None:
        (part,) = tmp_path.glob(".features.h5.part")
        with part.open("r+b") as stream:
            stream.seek(5_000)
            stream.write(b"\xff" * 8)

    with pytest.raises(CapscopeError, match="reads back differently"):
        write_many(tmp_path, swallow)
    assert list(tmp_path.iterdir()) == []


class Usage(NamedTuple):
    free: int


def test_a_store_that_does_not_fit_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(959))
    with (
        pytest.raises(CapscopeError, match="needs 960 bytes"),
        create_store(tmp_path, IDS, cells=6, dim=8, dtype="float32", attributes={}),
    ):
        pytest.fail("the block must not run")


def write_many(folder: Path, full: Callable[[], object]) -> None:
    ids = list(range(500))
    with create_store(folder, ids, cells=6, dim=8, dtype="float32", attributes={}) as writer:
        for _ in range(50):
            writer.append(features(10))
            full()


@pytest.mark.parametrize("limit", [100, 4_000, 50_000])
def test_a_limit_below_the_size_is_found_before_the_work(tmp_path: Path, limit: int) -> None:
    with (
        pytest.raises(CapscopeError, match=r"cannot write .*features\.h5"),
        files_of_at_most(limit),
    ):
        write_many(tmp_path, lambda: pytest.fail("nothing must be written"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(CapscopeError, match=r"cannot write .*features\.h5"),
        ExitStack() as later,
    ):
        write_many(tmp_path, lambda: later.enter_context(files_of_at_most(50_000)))
    assert list(tmp_path.iterdir()) == []


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("how", ["truncated", "missing", "zeroed"])
def test_a_damaged_store_is_refused(tmp_path: Path, how: str) -> None:
    made(tmp_path)
    damage(tmp_path / "features.h5", how)
    with pytest.raises(CapscopeError, match=r"features\.h5"):
        FeatureStore.open(tmp_path)


@pytest.mark.parametrize("name", ["ids", "grid"])
def test_another_hdf5_file_is_refused(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file[name] = np.zeros((2, 3, 4))
    write_manifest(tmp_path, "features", params={})
    with pytest.raises(CapscopeError, match="not a feature store"):
        FeatureStore.open(tmp_path)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    write_manifest(tmp_path, "run", params={})
    with pytest.raises(CapscopeError, match="holds 'run'"):
        FeatureStore.open(tmp_path)
