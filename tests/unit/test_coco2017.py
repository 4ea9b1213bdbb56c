"""COCO 2017: published files, published splits, every fault named."""

import json
import re

import pytest
from bad_images import picture
from coco_files import coco2017_settings, write_coco2017

from capscope.data.annotations import open_dataset
from capscope.data.entities import read_instances
from capscope.data.prepare import prepare_dataset
from capscope.errors import CapscopeError
from capscope.files import read_manifest


@pytest.fixture
def root(tmp_path):
    write_coco2017(tmp_path / "coco")
    return tmp_path / "coco"


def change(path, edit):
    loaded = json.loads(path.read_text())
    edit(loaded)
    path.write_text(json.dumps(loaded))


def test_the_lowest_ids_train_the_others_validate_and_val2017_tests(root, tmp_path):
    settings = coco2017_settings(root)
    prepare_dataset(tmp_path / "data", settings)
    dataset = open_dataset(tmp_path / "data", {"dataset": settings})
    ids = {split: [i.id for i in dataset.split(split)] for split in ("train", "val", "test")}
    assert ids == {"train": [2, 4, 7], "val": [9, 11], "test": [6, 3]}
    image = dataset.by_id(4)
    assert image.file == "train2017/000000000004.jpg"
    assert image.tokens[1] == tuple(re.findall(r"\w+", "a dog's ball, number 4 1."))
    assert dataset.path(dataset.by_id(3)).is_file()
    boxes = read_instances(tmp_path / "data" / "instances.json")
    assert boxes.objects(6)[0].category == "dog"
    assert 4 not in boxes.pictures
    manifest = read_manifest(tmp_path / "data", "data")
    assert set(manifest["inputs"]) == {"captions_train2017", "captions_val2017", "instances"}
    assert manifest["image_files_without_annotation"] == 0


def test_pictures_without_annotations_are_counted(root, tmp_path):
    picture().save(root / "train2017" / "000000000099.jpg")
    prepare_dataset(tmp_path / "data", coco2017_settings(root))
    assert read_manifest(tmp_path / "data", "data")["image_files_without_annotation"] == 1


def test_an_annotated_picture_without_a_file_stops_or_is_skipped(root, tmp_path):
    (root / "train2017" / "000000000004.jpg").unlink()
    with pytest.raises(CapscopeError, match=r"000000000004\.jpg is missing"):
        prepare_dataset(tmp_path / "data", coco2017_settings(root))
    settings = coco2017_settings(root) | {"on_unreadable": "skip"}
    assert [image.id for image in prepare_dataset(tmp_path / "data", settings).images] == [
        *(2, 7),
        *(9, 11),
        *(6, 3),
    ]


def test_a_corrupt_photograph_is_skipped_and_counted(root, tmp_path):
    path = root / "train2017" / "000000000007.jpg"
    path.write_bytes(path.read_bytes()[:300])
    settings = coco2017_settings(root) | {"on_unreadable": "skip"}
    prepare_dataset(tmp_path / "data", settings)
    assert read_manifest(tmp_path / "data", "data")["skipped"] == 1
    assert "000000000007.jpg" in (tmp_path / "data" / "skipped.csv").read_text()


def test_a_whole_folder_of_pictures_that_is_missing_is_not_skipped(root, tmp_path):
    for path in (root / "val2017").iterdir():
        path.unlink()
    (root / "val2017").rmdir()
    settings = coco2017_settings(root) | {"on_unreadable": "skip"}
    with pytest.raises(CapscopeError, match="val2017 is not a folder; 2 images"):
        prepare_dataset(tmp_path / "data", settings)


@pytest.mark.parametrize(
    ("part", "edit", "message"),
    [
        ("train", lambda d: d["images"].append(d["images"][0]), "image id 9 occurs twice"),
        ("train", lambda d: d["images"][0].update(id="9"), "'9', no whole number"),
        ("train", lambda d: d["images"][0].update(file_name="../../9.jpg"), "not a path inside"),
        ("train", lambda d: d["annotations"][0].update(image_id=1), "caption 90 is of unknown"),
        ("train", lambda d: d["annotations"][0].pop("image_id"), "caption 90 is of unknown"),
        ("train", lambda d: d["annotations"][0].update(caption=5), "'raw' must be a string"),
        ("train", lambda d: d.pop("images"), "no list of objects 'images'"),
        ("val", lambda d: d.update(annotations=[1]), "no list of objects 'annotations'"),
        ("val", lambda d: d.update(annotations=d["annotations"][1:2]), "no reference"),
    ],
)
def test_a_wrong_annotation_is_named(root, tmp_path, part, edit, message):
    change(root / "annotations" / f"captions_{part}2017.json", edit)
    with pytest.raises(CapscopeError, match=message):
        prepare_dataset(tmp_path / "data", coco2017_settings(root))
    assert not (tmp_path / "data").exists()


def test_one_id_in_both_parts_is_refused(root, tmp_path):
    def renumber(loaded):
        loaded["images"][0]["id"] = 6
        for one in loaded["annotations"]:
            if one["image_id"] == 9:
                one["image_id"] = 6

    change(root / "annotations" / "captions_train2017.json", renumber)
    with pytest.raises(CapscopeError, match="image id 6 occurs twice"):
        prepare_dataset(tmp_path / "data", coco2017_settings(root))


def test_more_training_images_than_there_are_leave_nothing_to_validate(root, tmp_path):
    with pytest.raises(CapscopeError, match=r"coco2017\.train = 5 leaves none"):
        prepare_dataset(tmp_path / "data", coco2017_settings(root, train=5))


def test_what_is_missing_is_said_with_its_place_and_its_address(tmp_path):
    entry = {
        "file": str(tmp_path / "coco" / "val2017.zip"),
        "addresses": ["http://example.org/val2017.zip"],
        "checksum": None,
        "bytes": None,
        "unpack": str(tmp_path / "coco"),
        "members": None,
    }
    with pytest.raises(CapscopeError) as caught:
        prepare_dataset(tmp_path / "data", coco2017_settings(tmp_path / "coco", downloads=[entry]))
    told = str(caught.value)
    for part in ("captions_train2017.json does not exist", "coco is not a folder"):
        assert part in told
    assert f"{tmp_path}/coco/val2017.zip, unpacked into {tmp_path}/coco" in told
    assert "http://example.org/val2017.zip" in told


def test_flickr30k_says_that_its_images_are_asked_for(tmp_path):
    own = {
        "annotations": str(tmp_path / "a.json"),
        "images": str(tmp_path / "i"),
        "instances": None,
    }
    settings = coco2017_settings(tmp_path) | {"reader": "flickr30k", "flickr30k": own}
    with pytest.raises(CapscopeError, match="fill in the form at https://"):
        prepare_dataset(tmp_path / "data", settings)


@pytest.mark.parametrize("reader", ["flickr30k", "coco2014"])
def test_karpathy_layouts_are_read_by_their_names_and_restval_trains(tmp_path, reader):
    (tmp_path / "i").mkdir()
    entries = []
    for number, split in enumerate(("train", "restval", "val", "test")):
        picture().save(tmp_path / "i" / f"{number}.jpg")
        sentences = [{"raw": "A dog.", "tokens": ["a", "dog"]}]
        entries.append(
            {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentences": sentences}
        )
    (tmp_path / "a.json").write_text(json.dumps({"images": entries}))
    own = {
        "annotations": str(tmp_path / "a.json"),
        "images": str(tmp_path / "i"),
        "instances": None,
    }
    settings = coco2017_settings(tmp_path) | {"reader": reader, reader: own}
    prepare_dataset(tmp_path / "data", settings)
    dataset = open_dataset(tmp_path / "data", {"dataset": settings})
    assert [image.id for image in dataset.split("train")] == [0, 1]
