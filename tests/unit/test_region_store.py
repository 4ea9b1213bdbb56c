"""Regions in the feature store: what goes in comes out, padded for batches, whole for one image."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from capscope.errors import CapscopeError
from capscope.features.regions import DETAILS, Regions, batch_of
from capscope.features.store import FeatureStore, create_region_store, create_store
from capscope.files import write_manifest

IDS = [40, 7, 99, 3]
COUNTS = [5, 2, 0, 4]
MOST, DIM = 5, 8
NAMES = {"class_names": ["cat", "dog"], "attribute_names": ["red"]}


def drawn(count: int, seed: int) -> Regions:
    rng = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=rng).sort(1).values
    return Regions(
        torch.randn(count, DIM, generator=rng),
        corners.flatten(1),
        (640 + seed, 480),
        torch.randint(0, 2, (count,), generator=rng),
        torch.rand(count, generator=rng),
        torch.randint(-1, 1, (count,), generator=rng),
        torch.rand(count, generator=rng),
    )


def made(folder: Path, counts: list[int] = COUNTS, dtype: str = "float32") -> FeatureStore:
    images = [drawn(count, seed) for seed, count in enumerate(counts)]
    with create_region_store(
        folder, IDS, regions=MOST, dim=DIM, dtype=dtype, attributes={"network": "toy", **NAMES}
    ) as writer:
        writer.append(images[:3])
        writer.append([])
        writer.append(images[3:])
    write_manifest(folder, "features", params={})
    return FeatureStore.open(folder)


def test_all_that_is_known_of_an_images_regions_comes_back(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert (store.kind, store.dim, len(store)) == ("regions", DIM, len(IDS))
    for seed, (image_id, count) in enumerate(zip(IDS, COUNTS, strict=True)):
        found, expected = store.regions(image_id), drawn(count, seed)
        assert found.size == expected.size
        for name in ("cells", "boxes", *DETAILS):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), msg=name)


def test_a_batch_is_padded_with_zeros_that_are_not_valid(tmp_path: Path) -> None:
    store = made(tmp_path)
    order = [3, 0, 2, 2, 1]
    found = store.read([IDS[i] for i in order])
    assert found.valid is not None
    assert found.boxes is not None
    assert found.cells.shape == (5, MOST, DIM)
    assert found.valid.sum(1).tolist() == [COUNTS[i] for i in order]
    for row, i in enumerate(order):
        expected = drawn(COUNTS[i], i)
        torch.testing.assert_close(found.cells[row, : COUNTS[i]], expected.cells)
        torch.testing.assert_close(found.boxes[row, : COUNTS[i]], expected.boxes)
        assert found.valid[row, : COUNTS[i]].all()
        assert not found.cells[row, COUNTS[i] :].any()
        assert not found.boxes[row, COUNTS[i] :].any()
        assert found.class_ids is not None
        assert expected.class_ids is not None
        classes = [*expected.class_ids.tolist(), *[-1] * (MOST - COUNTS[i])]
        assert found.class_ids[row].tolist() == classes
    seen = batch_of([drawn(COUNTS[i], i) for i in order], MOST)
    assert all(torch.equal(a, b) for a, b in zip(found, seen, strict=True) if a is not None)


def test_images_that_all_have_the_same_number_need_no_mask(tmp_path: Path) -> None:
    assert made(tmp_path, [MOST] * 4).read(IDS).valid is None


def test_half_precision_holds_features_and_leaves_boxes_whole(tmp_path: Path) -> None:
    found = made(tmp_path, dtype="float16").regions(IDS[0])
    torch.testing.assert_close(found.cells, drawn(5, 0).cells.half().float(), rtol=0, atol=0)
    torch.testing.assert_close(found.boxes, drawn(5, 0).boxes, rtol=0, atol=0)


def test_the_file_is_ordinary_hdf5_with_contiguous_fields(tmp_path: Path) -> None:
    made(tmp_path)
    with h5py.File(tmp_path / "features.h5") as file:
        assert set(file) == {"ids", "regions", "boxes", "counts", "sizes", *DETAILS}
        assert all(file[name].chunks is None for name in file)
        assert file["counts"][()].tolist() == COUNTS
        classes = drawn(2, 1).class_ids
        assert classes is not None
        assert file["class_ids"][1].tolist() == [*classes.tolist(), -1, -1, -1]


def test_the_same_regions_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made(tmp_path / name)
    one, two = (tmp_path / name / "features.h5" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_names_of_classes_travel_in_the_attributes(tmp_path: Path) -> None:
    attributes = made(tmp_path).attributes
    assert attributes["class_names"] == ["cat", "dog"]
    assert (attributes["kind"], attributes["regions"], attributes["dim"]) == ("regions", MOST, DIM)


def test_a_long_list_of_names_fits(tmp_path: Path) -> None:
    names = {
        "class_names": [f"a name of some class {n}" for n in range(1600)],
        "attribute_names": [f"a name of some attribute {n}" for n in range(400)],
    }
    with create_region_store(
        tmp_path, [1], regions=MOST, dim=DIM, dtype="float32", attributes=names
    ) as writer:
        writer.append([drawn(MOST, 0)])
    assert FeatureStore(tmp_path / "features.h5").attributes["class_names"] == names["class_names"]


def test_a_source_without_details_leaves_them_out(tmp_path: Path) -> None:
    image = drawn(3, 0)
    with create_region_store(
        tmp_path, [5], regions=4, dim=DIM, dtype="float32", attributes={}, details=["scores"]
    ) as writer:
        writer.append([Regions(image.cells, image.boxes, image.size, scores=image.scores)])
    found = FeatureStore(tmp_path / "features.h5").regions(5)
    assert found.class_ids is None
    assert found.scores is not None
    torch.testing.assert_close(found.scores, image.scores)


def test_segments_come_with_grid_and_regions(tmp_path: Path) -> None:
    segments = torch.rand(2, 6, 3)
    options: dict[str, Any] = {
        "dtype": "float32",
        "attributes": {"grid": [2, 3]},
        "segments": (6, 3),
    }
    with create_store(tmp_path / "grid", [1, 2], cells=6, dim=DIM, **options) as grid:
        grid.append(torch.rand(2, 6, DIM), segments)
    with create_region_store(tmp_path / "boxes", [1, 2], regions=5, dim=DIM, **options) as boxes:
        boxes.append([drawn(5, 0), drawn(2, 1)], segments)
    for name in ("grid", "boxes"):
        found = FeatureStore(tmp_path / name / "features.h5").read([2, 1])
        assert found.segments is not None
        torch.testing.assert_close(found.segments, segments[[1, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": torch.zeros(6, DIM), "boxes": torch.zeros(6, 4)}, "do not fit"),
        ({"cells": torch.zeros(5, DIM + 1)}, "do not fit"),
        ({"boxes": torch.zeros(4, 4)}, "do not fit"),
        ({"boxes": torch.full((5, 4), 1.01)}, r"in \[0, 1\]"),
        ({"boxes": torch.full((5, 4), float("nan"))}, r"in \[0, 1\]"),
        ({"boxes": torch.tensor([[0.5, 0, 0.4, 1]] * 5)}, "x0 <= x1"),
        ({"scores": None}, "scores must be given"),
        ({"scores": torch.zeros(4)}, "scores must be given"),
    ],
)
def test_regions_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    image = drawn(5, 0)._replace(**change)
    with (
        pytest.raises(ValueError, match=message),
        create_region_store(
            tmp_path, [1], regions=MOST, dim=DIM, dtype="float32", attributes={}
        ) as writer,
    ):
        writer.append([image])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cells", "scores"])
def test_a_value_that_is_not_finite_names_the_image(tmp_path: Path, name: str) -> None:
    image = drawn(5, 0)
    getattr(image, name)[2] = np.nan
    with (
        pytest.raises(CapscopeError, match="image 11: "),
        create_region_store(
            tmp_path, [11], regions=MOST, dim=DIM, dtype="float16", attributes={}
        ) as writer,
    ):
        writer.append([image])


def test_an_image_that_comes_twice_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CapscopeError, match="image 7 comes twice"),
        create_region_store(tmp_path, [7, 3, 7], regions=1, dim=1, dtype="float32", attributes={}),
    ):
        pytest.fail("the block must not run")


def test_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(CapscopeError, match="no image"),
        create_region_store(tmp_path, [], regions=1, dim=1, dtype="float32", attributes={}),
    ):
        pytest.fail("the block must not run")


def test_regions_and_grid_are_not_of_the_same_kind(tmp_path: Path) -> None:
    regions = made(tmp_path)
    regions.check_same_kind(regions.attributes, "the run")
    with pytest.raises(CapscopeError, match="kind = 'regions', but the run was trained with None"):
        regions.check_same_kind({"network": "toy", "grid": [8, 8]}, "the run")
    with pytest.raises(CapscopeError, match="dim = 8, but the run was trained with 9"):
        regions.check_same_kind({**regions.attributes, "dim": 9}, "the run")


def test_a_region_store_without_boxes_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file["ids"], file["regions"] = np.arange(2), np.zeros((2, 3, 4))
        file.attrs["attributes"] = "{}"
    with pytest.raises(CapscopeError, match="not a feature store: it holds regions"):
        FeatureStore(tmp_path / "features.h5")
