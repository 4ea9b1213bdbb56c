import csv
import json
from pathlib import Path
from typing import Any

import pytest
from bad_images import picture, save_all, unreadable_files

from capscope.cli import capscope
from capscope.data.annotations import open_dataset
from capscope.data.captions import open_captions, prepare_captions
from capscope.data.entities import read_instances
from capscope.data.prepare import prepare_dataset
from capscope.errors import CapscopeError
from capscope.files import read_manifest

SPLITS = ["train", "train", "val", "test"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with four images, annotations and boxes."""
    root = tmp_path / "source"
    (root / "images").mkdir(parents=True)
    entries, boxes = [], []
    for number, split in enumerate(SPLITS):
        picture().save(root / "images" / f"{number}.png")
        sentences = [{"raw": f"A cat on mat {word}."} for word in ("one", "two")]
        entries.append(
            {
                "filename": f"{number}.png",
                "filepath": "images",
                "cocoid": number,
                "split": split,
                "sentences": sentences,
            }
        )
        boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [1, 2, 3, 4]})
    (root / "dataset.json").write_text(json.dumps({"dataset": "toy", "images": entries}))
    pictures = [
        {"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(len(SPLITS))
    ]
    instances = {
        "images": pictures,
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": boxes,
    }
    (root / "boxes.json").write_text(json.dumps(instances))
    return root


def settings(root: Path, policy: str = "fail") -> dict[str, Any]:
    return {
        "name": "toy",
        "reader": "karpathy",
        "karpathy": {
            "annotations": str(root / "dataset.json"),
            "images": str(root),
            "instances": str(root / "boxes.json"),
        },
        "downloads": [],
        "on_unreadable": policy,
        "evaluate": ["test"],
    }


def change(path: Path, edit: Any) -> None:
    loaded = json.loads(path.read_text())
    edit(loaded)
    path.write_text(json.dumps(loaded))


def test_a_checked_data_set_is_written_and_opened_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare_dataset(out, settings(source))
    manifest = read_manifest(out, "data", check_hashes=True)
    assert manifest["images"] == {"train": 2, "val": 1, "test": 1}
    assert manifest["skipped"] == 0
    dataset = open_dataset(out, {"dataset": settings(source)})
    assert [image.id for image in dataset.images] == [0, 1, 2, 3]
    assert (dataset.images[0].width, dataset.images[0].height) == (40, 30)
    assert dataset.path(dataset.images[0]) == source / "images" / "0.png"
    assert read_instances(out / "instances.json").objects(3)[0].category == "cat"


def test_the_same_source_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare_dataset(tmp_path / name, settings(source))
    for name in ("dataset.json", "instances.json", "skipped.csv", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["missing", *unreadable_files()])
def test_an_unreadable_image_stops_or_is_skipped_and_counted(
    source: Path, tmp_path: Path, name: str
) -> None:
    bad = source / "images" / "1.png"
    bad.unlink()
    if name != "missing":
        bad.write_bytes(unreadable_files()[name])
    out = tmp_path / "data"
    with pytest.raises(CapscopeError, match=r"1\.png"):
        prepare_dataset(out, settings(source))
    assert not out.exists()
    prepare_dataset(out, settings(source, "skip"))
    dataset = open_dataset(out, {"dataset": settings(source)})
    assert [image.id for image in dataset.images] == [0, 2, 3]
    assert read_manifest(out, "data")["skipped"] == 1
    assert 1 not in read_instances(out / "instances.json").pictures
    with (out / "skipped.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["image_id"] == "1"
    assert row["file"] == "images/1.png"
    assert "images/1.png" in row["reason"]
    assert str(tmp_path) not in row["reason"]


def test_an_image_without_reference_is_skipped_and_counted(source: Path, tmp_path: Path) -> None:
    change(source / "dataset.json", lambda loaded: loaded["images"][0].update(sentences=[]))
    with pytest.raises(CapscopeError, match="no reference"):
        prepare_dataset(tmp_path / "data", settings(source))
    prepare_dataset(tmp_path / "data", settings(source, "skip"))
    assert read_manifest(tmp_path / "data", "data")["skipped"] == 1


def test_nothing_usable_is_an_error_under_skip_too(source: Path, tmp_path: Path) -> None:
    for path in (source / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(CapscopeError, match="none of the 4 images"):
        prepare_dataset(tmp_path / "data", settings(source, "skip"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("annotations", None, r"karpathy\.annotations is not set"),
        ("images", None, r"karpathy\.images is not set"),
        ("images", "nowhere", "nowhere is not a folder"),
        ("annotations", "nowhere.json", "nowhere.json does not exist"),
        ("instances", "nowhere.json", "nowhere.json does not exist"),
        ("images", "${CAPSCOPE_UNSET}/x", "set the environment variable CAPSCOPE_UNSET"),
    ],
)
def test_a_wrong_source_is_named(
    source: Path, tmp_path: Path, key: str, value: str | None, message: str
) -> None:
    chosen = settings(source)
    chosen["karpathy"][key] = value
    with pytest.raises(CapscopeError, match=message):
        prepare_dataset(tmp_path / "data", chosen)
    assert not (tmp_path / "data").exists()


def test_a_split_to_evaluate_that_has_no_image_is_named(source: Path, tmp_path: Path) -> None:
    chosen = settings(source) | {"evaluate": ["test", "shift"]}
    with pytest.raises(CapscopeError, match="no image of split 'shift'"):
        prepare_dataset(tmp_path / "data", chosen)


def test_boxes_of_other_images_are_refused(source: Path, tmp_path: Path) -> None:
    def renumber(loaded: Any) -> None:
        loaded["annotations"] = []
        for one in loaded["images"]:
            one["id"] += 1000

    change(source / "boxes.json", renumber)
    with pytest.raises(CapscopeError, match="no image id in common"):
        prepare_dataset(tmp_path / "data", settings(source))


def test_a_data_set_without_boxes_has_no_instances_file(source: Path, tmp_path: Path) -> None:
    prepare_dataset(tmp_path / "data", settings(source))
    chosen = settings(source)
    chosen["karpathy"]["instances"] = None
    prepare_dataset(tmp_path / "data", chosen)
    assert not (tmp_path / "data" / "instances.json").exists()


def test_an_unfinished_data_folder_is_not_opened(source: Path, tmp_path: Path) -> None:
    prepare_dataset(tmp_path / "data", settings(source))
    (tmp_path / "data" / "manifest.json").unlink()
    with pytest.raises(CapscopeError, match="not a finished data folder"):
        open_dataset(tmp_path / "data", {"dataset": settings(source)})


def test_the_vocabulary_and_captions_of_a_system_are_written_and_opened(
    source: Path, tmp_path: Path
) -> None:
    prepare_dataset(tmp_path / "data", settings(source))
    chosen = {"min_count": 2, "max_length": 6, "references": "all"}
    params = {"dataset": settings(source), "systems": {"toy": {"vocabulary": chosen}}}
    out = tmp_path / "vocabulary"
    prepare_captions(out, tmp_path / "data", params, "toy")
    vocabulary, captions = open_captions(out)
    assert vocabulary.words[1:7] == ("a", "cat", "on", "mat", "one", "two")
    assert captions.image_ids.tolist() == [0, 1, 2, 3]
    assert vocabulary.decode(captions.labels[captions.rows_of(2)[1]]) == "a cat on mat two"
    assert read_manifest(out, "vocabulary")["references"] == 8
    chosen["references"] = "published"
    prepare_captions(out, tmp_path / "data", params, "toy")
    assert len(open_captions(out)[1].labels) == 4 * 5
    with pytest.raises(CapscopeError, match="no system 'other'"):
        prepare_captions(out, tmp_path / "data", params, "other")


def test_the_commands_make_the_same_folders(source: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(json.dumps({"dataset": settings(source)}))
    params = ["--params", str(Path(__file__).parents[2] / "params.yaml"), "--params", str(overlay)]
    data, out = str(tmp_path / "data"), str(tmp_path / "vocabulary")
    run = CliRunner().invoke
    assert run(capscope, ["data", *params, "--out", data]).exit_code == 0
    found = run(
        capscope, ["vocabulary", *params, "--system", "gridtd", "--data", data, "--out", out]
    )
    assert found.exit_code == 0, found.output
    assert len(open_captions(Path(out))[1].image_ids) == 4
    save_all(source / "images", {"1.png": b""})
    refused = run(capscope, ["data", *params, "--out", str(tmp_path / "other")])
    assert isinstance(refused.exception, CapscopeError)
    assert not (tmp_path / "other").exists()
