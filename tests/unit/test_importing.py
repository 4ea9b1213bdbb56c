"""Features of others in a store: what is in the files comes out, what is wrong is named."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from published_features import (
    DIM,
    HEIGHT,
    WIDTH,
    Published,
    data_folder,
    drawn,
    import_params,
    six_columns,
    ten_columns,
)

from capscope.errors import CapscopeError
from capscope.features.importing.write import import_features
from capscope.features.store import FeatureStore

NAMES = {7: "COCO_train2014_000000000007.jpg", 40: "COCO_train2014_000000000040.jpg", 3: "3.png"}
SKIP = {"dataset": {"on_unreadable": "skip"}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return data_folder(tmp_path / "data", NAMES)


def imported(tmp_path: Path, *sources: tuple[str, Path], **options: Any) -> FeatureStore:
    changes = {key: options.pop(key) for key in ("dataset", "features") if key in options}
    out = tmp_path / "store"
    import_features(sources, tmp_path / "data", import_params(**changes), out, **options)
    return FeatureStore.open(out)


def check_regions(store: FeatureStore, image_id: int, expected: Published) -> None:
    found = store.regions(image_id)
    torch.testing.assert_close(found.cells, torch.from_numpy(expected.cells))
    torch.testing.assert_close(found.pixel_boxes(), torch.from_numpy(expected.boxes))
    assert found.size == (WIDTH, HEIGHT)


def write_tsv(path: Path, lines: list[str]) -> tuple[str, Path]:
    path.write_text("".join(lines), newline="")
    return "tsv", path


def test_ten_columns_give_all_that_is_known_of_each_region(tmp_path: Path, data: Path) -> None:
    stems = [Path(name).stem for name in NAMES.values()]
    lines = [ten_columns(stem, drawn(n, 3 + n)) for n, stem in enumerate(stems)]
    words = {}
    for name, count in (("object_names", 9), ("attribute_names", 4)):
        path = tmp_path / f"{name}.txt"
        path.write_text("\n".join(f"Word {n},other word" for n in range(count)))
        words[name] = str(path)
    store = imported(
        tmp_path,
        write_tsv(tmp_path / "a.tsv", lines),
        features={"regions": {"bottom_up": words}},
    )
    assert store.ids.tolist() == list(NAMES)
    assert store.attributes["class_names"][8] == "word 8"
    assert len(store.attributes["attribute_names"]) == 4
    for n, image_id in enumerate(NAMES):
        expected = drawn(n, 3 + n)
        check_regions(store, image_id, expected)
        found = store.regions(image_id)
        for name in ("class_ids", "scores", "attribute_ids", "attribute_scores"):
            torch.testing.assert_close(
                getattr(found, name), torch.from_numpy(getattr(expected, name)), msg=name
            )
    batch = store.read(list(NAMES))
    assert batch.valid is not None
    assert batch.valid.sum(1).tolist() == [3, 4, 5]


def test_six_columns_in_several_files_are_one_store(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    write_tsv(folder / "train.tsv.1", [six_columns(3, drawn(2))])
    write_tsv(folder / "train.tsv.0", [six_columns(40, drawn(1)), six_columns(7, drawn(0))])
    store = imported(tmp_path, ("tsv", folder))
    assert store.ids.tolist() == [40, 7, 3]
    for n, image_id in enumerate(NAMES):
        check_regions(store, image_id, drawn(n))
    assert store.regions(7).class_ids is None


def test_the_extractor_of_other_features_goes_with_them(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "store" / "extractor.json"
    path.parent.mkdir()
    path.write_text("{}")
    lines = [six_columns(image_id, drawn(0)) for image_id in NAMES]
    source = write_tsv(tmp_path / "a.tsv", lines)
    with pytest.raises(CapscopeError):
        imported(tmp_path, ("tsv", tmp_path / "none.tsv"))
    assert path.exists()
    imported(tmp_path, source)
    assert not path.exists()


def test_images_of_other_data_are_counted_and_left_out(tmp_path: Path, data: Path) -> None:
    lines = [six_columns(image_id, drawn(image_id)) for image_id in (*NAMES, 1000, 2000)]
    store = imported(tmp_path, write_tsv(tmp_path / "a.tsv", lines))
    assert store.ids.tolist() == list(NAMES)
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["left_out"] == 2


def test_an_image_without_features_stops_or_is_listed(tmp_path: Path, data: Path) -> None:
    source = write_tsv(tmp_path / "a.tsv", [six_columns(7, drawn(0)), six_columns(3, drawn(2))])
    with pytest.raises(
        CapscopeError, match=r"1 of 3 images .* have no features: .*a.tsv lacks 1 \(image 40\)"
    ):
        imported(tmp_path, source)
    assert not (tmp_path / "store" / "features.h5").exists()
    assert imported(tmp_path, source, **SKIP).ids.tolist() == [7, 3]
    assert "no features" in (tmp_path / "store" / "skipped.csv").read_text()


def test_features_of_no_image_at_all_are_an_error(tmp_path: Path, data: Path) -> None:
    source = write_tsv(tmp_path / "a.tsv", [six_columns(1000, drawn(0))])
    with pytest.raises(CapscopeError, match="none of 1 entries"):
        imported(tmp_path, source)


def test_the_same_image_twice_is_one_unless_it_differs(tmp_path: Path, data: Path) -> None:
    lines = [six_columns(image_id, drawn(image_id)) for image_id in (7, 40, 3, 7)]
    assert len(imported(tmp_path, write_tsv(tmp_path / "a.tsv", lines))) == 3
    lines[-1] = six_columns(7, drawn(8))
    with pytest.raises(CapscopeError, match=r"image 7 has two different.*line 1.*line 4"):
        imported(tmp_path, write_tsv(tmp_path / "a.tsv", lines))


@pytest.mark.parametrize("first", [True, False])
def test_of_two_copies_of_which_one_is_damaged_the_other_counts(
    tmp_path: Path, data: Path, first: bool
) -> None:
    """As of three images in the published test features of 2014."""
    lines = [six_columns(image_id, drawn(image_id)) for image_id in (7, 40, 3)]
    broken = six_columns(7, drawn(7))[:-9] + "\n"
    lines = [broken, *lines] if first else [*lines, broken]
    check_regions(imported(tmp_path, write_tsv(tmp_path / "a.tsv", lines)), 7, drawn(7))


def changed(**parts: Any) -> Callable[[], str]:
    return lambda: six_columns(40, drawn(1)._replace(**parts))


def with_value(name: str, value: float) -> Callable[[], str]:
    regions = drawn(1)
    getattr(regions, name)[2, 1] = value
    return lambda: six_columns(40, regions)


DAMAGE: dict[str, tuple[Callable[[], str], str]] = {
    "cut": (lambda: six_columns(40, drawn(1))[:-15] + "\n", "features are not valid|mixed up"),
    "no base64": (lambda: six_columns(40, drawn(1)).replace("A", "!"), "not valid base64"),
    "count": (lambda: six_columns(40, drawn(1)).replace("\t5\t", "\t6\t"), "cut or mixed up"),
    "no count": (lambda: six_columns(40, drawn(1)).replace("\t5\t", "\tx\t"), "no whole number"),
    "zero": (
        lambda: six_columns(40, drawn(1)).replace("\t5\t", "\t0\t"),
        "no region of this image",
    ),
    "nan": (with_value("cells", np.nan), "infinite or not a number"),
    "inf": (with_value("cells", np.inf), "infinite or not a number"),
    "nan box": (with_value("boxes", np.nan), "boxes are infinite"),
    "inside out": (changed(boxes=drawn(1).boxes[:, [2, 3, 0, 1]]), "not x0, y0, x1, y1"),
    "outside": (changed(boxes=drawn(1).boxes + np.float32(9)), "leave the image"),
    "no area": (
        changed(boxes=drawn(1).boxes[:, [0, 1, 0, 3]]),
        r"5 of 5 boxes have no area \(places 0, 1, 2, 3, 4, from 0\)",
    ),
    "dimension": (changed(cells=drawn(1, dim=7).cells), r"features \(7,\), those of the first"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_line_is_named_or_left_out(tmp_path: Path, data: Path, name: str) -> None:
    line, message = DAMAGE[name]
    lines = [six_columns(7, drawn(0)), line(), six_columns(3, drawn(2))]
    source = write_tsv(tmp_path / "a.tsv", lines)
    with pytest.raises(CapscopeError, match=message) as caught:
        imported(tmp_path, source)
    assert "a.tsv, line 2" in str(caught.value)
    assert not (tmp_path / "store" / "features.h5").exists()
    store = imported(tmp_path, source, **SKIP)
    assert store.ids.tolist() == [7, 3]
    check_regions(store, 7, drawn(0))
    assert "a.tsv, line 2" in (tmp_path / "store" / "skipped.csv").read_text()


def test_swapped_sides_are_suspected(tmp_path: Path, data: Path) -> None:
    regions = drawn(1)._replace(boxes=np.array([[0, 0, WIDTH, HEIGHT]] * 5, np.float32))
    line = six_columns(40, regions).replace(f"\t{WIDTH}\t{HEIGHT}\t", f"\t{HEIGHT}\t{WIDTH}\t")
    source = write_tsv(tmp_path / "a.tsv", [line])
    with pytest.raises(CapscopeError, match="48 x 64 pixels; are width and height swapped"):
        imported(tmp_path, source, **SKIP)


def test_a_first_line_that_is_damaged_is_no_yardstick(tmp_path: Path, data: Path) -> None:
    lines = [with_value("cells", np.nan)(), six_columns(7, drawn(0)), six_columns(3, drawn(2))]
    source = write_tsv(tmp_path / "a.tsv", lines)
    assert imported(tmp_path, source, **SKIP).ids.tolist() == [7, 3]


def test_a_file_that_is_mostly_damaged_is_refused(tmp_path: Path, data: Path) -> None:
    bad = [six_columns(i, drawn(i))[:-15] + "\n" for i in (7, 40)]
    source = write_tsv(tmp_path / "a.tsv", [*bad, six_columns(3, drawn(2))])
    with pytest.raises(CapscopeError, match="2 of 3 entries cannot be used"):
        imported(tmp_path, source, **SKIP)


@pytest.mark.parametrize("content", ["a\tb\tc\n", "no columns\n"])
def test_another_kind_of_file_is_refused(tmp_path: Path, data: Path, content: str) -> None:
    with pytest.raises(CapscopeError, match=r"line 1 has \d columns, expected 6 or 10"):
        imported(tmp_path, write_tsv(tmp_path / "a.tsv", [content]))


def test_mixed_layouts_are_refused(tmp_path: Path, data: Path) -> None:
    lines = [six_columns(7, drawn(0)), ten_columns(40, drawn(1))]
    with pytest.raises(CapscopeError, match="line 2 has 10 columns, the first 6"):
        imported(tmp_path, write_tsv(tmp_path / "a.tsv", lines))


def test_more_regions_than_allowed_say_what_to_set(tmp_path: Path, data: Path) -> None:
    lines = [six_columns(image_id, drawn(image_id, 40)) for image_id in NAMES]
    source = write_tsv(tmp_path / "a.tsv", lines)
    with pytest.raises(CapscopeError, match=r"has 40 regions; set features\.regions\.regions"):
        imported(tmp_path, source)
    assert imported(tmp_path, source, features={"regions": {"regions": 100}}).grid == (100, 1)


def test_a_file_per_image_holds_features_and_boxes(tmp_path: Path, data: Path) -> None:
    for n, name in enumerate(NAMES.values()):
        path = tmp_path / "bu" / "train" / f"{name}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["image_features"], file["image_boxes"] = drawn(n).cells, drawn(n).boxes
    store = imported(tmp_path, ("regions_hdf5", tmp_path / "bu"))
    for n, image_id in enumerate(NAMES):
        check_regions(store, image_id, drawn(n))


def test_archives_per_image_hold_features_and_boxes(tmp_path: Path, data: Path) -> None:
    for kind in ("att", "box"):
        (tmp_path / f"cocobu_{kind}").mkdir()
    for n, image_id in enumerate(NAMES):
        np.savez_compressed(tmp_path / "cocobu_att" / f"{image_id}.npz", feat=drawn(n).cells)
        np.save(tmp_path / "cocobu_box" / f"{image_id}.npy", drawn(n).boxes)
    store = imported(tmp_path, ("regions_npz", tmp_path / "cocobu"))
    for n, image_id in enumerate(NAMES):
        check_regions(store, image_id, drawn(n))
    (tmp_path / "cocobu_box" / "40.npy").unlink()
    with pytest.raises(CapscopeError, match=r"cocobu_box.*40\.npy cannot be read"):
        imported(tmp_path, ("regions_npz", tmp_path / "cocobu"))


def test_archives_are_not_unpickled(tmp_path: Path, data: Path) -> None:
    for image_id in NAMES:
        feat = np.array([{"a": 1}], object)
        (tmp_path / "grid").mkdir(exist_ok=True)
        np.savez(tmp_path / "grid" / f"{image_id}.npz", feat=feat)
    with pytest.raises(CapscopeError, match="cannot be read"):
        imported(tmp_path, ("grid_npz", tmp_path / "grid"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """200 MB of lines go through 60 MB; the real files have 25 GB."""
    many = 550
    data_folder(tmp_path / "data", {number: f"{number}.jpg" for number in range(1, many + 1)})
    with (tmp_path / "big.tsv").open("w") as stream:
        for number in range(1, many + 1):
            stream.write(six_columns(number, drawn(number, 36, 2048)))
    assert (tmp_path / "big.tsv").stat().st_size > 200e6
    script = Path(__file__).with_name("import_in_little_memory.py")
    command = [sys.executable, str(script), str(tmp_path / "big.tsv"), str(tmp_path / "data")]
    done = subprocess.run(
        [*command, str(tmp_path / "store"), "60000000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check_regions(FeatureStore.open(tmp_path / "store"), 77, drawn(77, 36, 2048))


def grid(seed: int, count: int = 49) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).random((count, DIM)).astype(np.float32)


def test_one_file_holds_the_grids_of_all_images(tmp_path: Path, data: Path) -> None:
    with h5py.File(tmp_path / "grids.hdf5", "w") as file:
        file["7_features"] = grid(0)
        file["40_grids"] = grid(1)
        file["3"] = grid(2).T.reshape(1, DIM, 7, 7)
        file["40_cls_prob"] = np.zeros(3)
        file["1000_features"] = grid(3)
    store = imported(tmp_path, ("grid_hdf5", tmp_path / "grids.hdf5"))
    assert (store.kind, store.grid) == ("grid", (7, 7))
    cells = store.read(list(NAMES)).cells
    for n in range(3):
        torch.testing.assert_close(cells[n], torch.from_numpy(grid(n)))


def test_maps_of_another_size_are_pooled_to_7_by_7(tmp_path: Path, data: Path) -> None:
    maps = np.random.default_rng(0).random((3, DIM, 14, 21)).astype(np.float32)
    with h5py.File(tmp_path / "grids.hdf5", "w") as file:
        for image_id, own in zip(NAMES, maps, strict=True):
            file[f"{image_id}_features"] = own
    cells = imported(tmp_path, ("grid_hdf5", tmp_path / "grids.hdf5")).read(list(NAMES)).cells
    expected = maps.reshape(3, DIM, 7, 2, 7, 3).mean((3, 5)).reshape(3, DIM, 49).transpose(0, 2, 1)
    torch.testing.assert_close(cells, torch.from_numpy(np.ascontiguousarray(expected)))


def test_cells_that_make_no_square_are_cut_and_filled_up_as_published_only(
    tmp_path: Path, data: Path
) -> None:
    with h5py.File(tmp_path / "grids.hdf5", "w") as file:
        for n, (image_id, count) in enumerate(zip(NAMES, (49, 30, 60), strict=True)):
            file[f"{image_id}_features"] = grid(n, count)
    source = ("grid_hdf5", tmp_path / "grids.hdf5")
    with pytest.raises(CapscopeError, match="60 cells make no square"):
        imported(tmp_path, source)
    cells = imported(tmp_path, source, parity=True).read(list(NAMES)).cells
    torch.testing.assert_close(cells[1, :30], torch.from_numpy(grid(1, 30)))
    assert not cells[1, 30:].any()
    torch.testing.assert_close(cells[2], torch.from_numpy(grid(2, 60)[:49]))


def test_grids_per_image_are_archives(tmp_path: Path, data: Path) -> None:
    (tmp_path / "att").mkdir()
    for n, image_id in enumerate(NAMES):
        np.savez_compressed(tmp_path / "att" / f"{image_id}.npz", feat=grid(n).reshape(7, 7, DIM))
    cells = imported(tmp_path, ("grid_npz", tmp_path / "att")).read(list(NAMES)).cells
    torch.testing.assert_close(cells[2], torch.from_numpy(grid(2)))


@pytest.mark.parametrize("form", ["segments_npy", "segments_hdf5"])
def test_segments_come_beside_the_grid(tmp_path: Path, data: Path, form: str) -> None:
    segments = np.random.default_rng(0).random((3, 133, 7, 7)).astype(np.float32)
    with h5py.File(tmp_path / "grids.hdf5", "w") as file:
        for n, image_id in enumerate(NAMES):
            file[f"{image_id}_features"] = grid(n)
    path = tmp_path / "segments"
    if form == "segments_npy":
        (path / "train2014").mkdir(parents=True)
        for image_id, own in zip(NAMES, segments, strict=True):
            np.save(path / "train2014" / f"{image_id}.npy", own)
    else:
        with h5py.File(path, "w") as file:
            for image_id, own in zip(NAMES, segments, strict=True):
                file[f"{image_id}_segments"] = own
    found = imported(tmp_path, ("grid_hdf5", tmp_path / "grids.hdf5"), (form, path))
    read = found.read([3, 7]).segments
    assert read is not None
    expected = segments[[2, 0]].reshape(2, 133, 49).transpose(0, 2, 1)
    torch.testing.assert_close(read, torch.from_numpy(np.ascontiguousarray(expected)))


def grid_and_segments(tmp_path: Path, *shapes: tuple[int, int, int]) -> list[tuple[str, Path]]:
    """Write a grid of 7 x 7 for every image, and segments of some shapes for the first of them."""
    with h5py.File(tmp_path / "grids.hdf5", "w") as file:
        for n, image_id in enumerate(NAMES):
            file[f"{image_id}_features"] = grid(n)
    (tmp_path / "segments").mkdir()
    for image_id, shape in zip(NAMES, shapes, strict=False):
        np.save(tmp_path / "segments" / f"{image_id}.npy", np.ones(shape, np.float32))
    return [("grid_hdf5", tmp_path / "grids.hdf5"), ("segments_npy", tmp_path / "segments")]


def test_images_with_a_grid_and_without_segments_are_named(tmp_path: Path, data: Path) -> None:
    sources = grid_and_segments(tmp_path, (133, 7, 7))
    with pytest.raises(CapscopeError, match=r"2 of 3 images .*segments lacks 2 \(image 40, 3\);"):
        imported(tmp_path, *sources)
    store = imported(tmp_path, *sources, **SKIP)
    assert store.ids.tolist() == [7]
    assert "3,3.png,no features" in (tmp_path / "store" / "skipped.csv").read_text()


def test_a_grid_and_segments_of_different_images_are_an_error(tmp_path: Path, data: Path) -> None:
    sources = grid_and_segments(tmp_path, (133, 7, 7))
    with h5py.File(sources[0][1], "a") as file:
        del file["7_features"]
    with pytest.raises(
        CapscopeError, match=r"no image .* is in both .*grids.hdf5 lacks 1 \(image 7"
    ):
        imported(tmp_path, *sources, **SKIP)


def test_segments_of_another_grid_are_an_error(tmp_path: Path, data: Path) -> None:
    sources = grid_and_segments(tmp_path, *[(133, 10, 10)] * 3)
    with pytest.raises(CapscopeError, match=r"npy has segments of 100 cells, but .* has 49: both"):
        imported(tmp_path, *sources, **SKIP)
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize("shape", [(132, 7, 7), (133, 7, 8)])
def test_segments_that_lack_a_class_or_have_other_cells_are_named(
    tmp_path: Path, data: Path, shape: tuple[int, int, int]
) -> None:
    sources = grid_and_segments(tmp_path, (133, 7, 7), shape, (133, 7, 7))
    expected = re.escape(f"40.npy: segments (cells, classes) ({shape[1] * shape[2]}, {shape[0]})")
    with pytest.raises(CapscopeError, match=expected):
        imported(tmp_path, *sources)
    assert imported(tmp_path, *sources, **SKIP).ids.tolist() == [3, 7]


@pytest.mark.parametrize(
    "formats", [("segments_npy",), ("tsv", "tsv"), ("tsv", "grid_npz"), ("other",)]
)
def test_formats_that_make_no_store_are_refused(
    tmp_path: Path, data: Path, formats: tuple[str, ...]
) -> None:
    with pytest.raises(CapscopeError, match=r"unknown format|a grid or a store first"):
        imported(tmp_path, *((form, tmp_path) for form in formats))


def test_a_truncated_hdf5_file_is_named(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "grids.hdf5"
    with h5py.File(path, "w") as file:
        file["7_features"] = grid(0)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CapscopeError, match=r"grids\.hdf5.*truncated"):
        imported(tmp_path, ("grid_hdf5", path))
