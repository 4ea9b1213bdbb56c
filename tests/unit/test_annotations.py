import json
from pathlib import Path
from typing import Any

import pytest

from capscope.data.annotations import Dataset, karpathy_json, read_karpathy
from capscope.errors import CapscopeError


def entry(**change: Any) -> dict[str, Any]:
    made = {
        "filename": "1.jpg",
        "filepath": "val2014",
        "cocoid": 7,
        "imgid": 1,
        "split": "train",
        "sentences": [{"raw": "A cat.", "tokens": ["a", "cat"]}],
    }
    return {key: value for key, value in (made | change).items() if value is not ...}


def read(tmp_path: Path, *entries: Any, policy: str = "fail") -> Dataset:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"dataset": "toy", "images": list(entries)}), encoding="utf-8")
    return read_karpathy(path, tmp_path, "toy", policy=policy)


def sentence(raw: str) -> dict[str, Any]:
    return entry(sentences=[{"raw": raw}])


def test_an_image_has_its_coco_id_its_relative_path_and_its_references(tmp_path: Path) -> None:
    (image,) = read(tmp_path, entry(width=640, height=480)).images
    assert (image.id, image.file, image.split) == (7, "val2014/1.jpg", "train")
    assert image.references == ("A cat.",)
    assert image.tokens == (("a", "cat"),)
    assert (image.width, image.height) == (640, 480)


def test_flickr_entries_without_folder_and_coco_id_use_imgid(tmp_path: Path) -> None:
    (image,) = read(tmp_path, entry(cocoid=..., filepath=...)).images
    assert (image.id, image.file) == (1, "1.jpg")


def test_words_are_made_from_raw_text_where_tokens_are_missing(tmp_path: Path) -> None:
    (image,) = read(tmp_path, sentence("A man's CAT.")).images
    assert image.tokens == (("a", "man", "s", "cat"),)


def test_raw_text_is_made_from_tokens_where_it_is_missing(tmp_path: Path) -> None:
    (image,) = read(tmp_path, entry(sentences=[{"raw": "", "tokens": ["a", "cat"]}])).images
    assert image.references == ("a cat",)


def test_train_includes_restval_and_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    splits = ["restval", "val", "train", "test", "train"]
    dataset = read(tmp_path, *(entry(cocoid=i, split=s) for i, s in enumerate(splits)))
    assert [image.id for image in dataset.split("train")] == [0, 2, 4]
    assert [image.id for image in dataset.split("val", "test")] == [1, 3]
    with pytest.raises(CapscopeError, match="unknown split 'tset'"):
        dataset.split("tset")


def test_an_unknown_id_is_named(tmp_path: Path) -> None:
    dataset = read(tmp_path, entry())
    assert dataset.by_id(7).file == "val2014/1.jpg"
    with pytest.raises(CapscopeError, match="no image with id 8"):
        dataset.by_id(8)


@pytest.mark.parametrize("separator", ["\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029", "\0"])
def test_a_reference_with_a_separator_or_control_becomes_one_line_and_is_counted(
    tmp_path: Path, separator: str
) -> None:
    raw = f"a cat{separator}on a mat"
    dataset = read(tmp_path, entry(sentences=[{"raw": raw, "tokens": ["a", f"cat{separator}on"]}]))
    assert dataset.images[0].references == ("a cat on a mat",)
    assert dataset.images[0].tokens == (("a", "cat", "on"),)
    assert dataset.cleaned == 1


def test_a_trailing_line_feed_as_coco_has_it_is_not_counted_as_cleaned(tmp_path: Path) -> None:
    assert read(tmp_path, sentence("A cat.\n")).cleaned == 0


@pytest.mark.parametrize(
    "sentences",
    [[], ..., [{"raw": ""}], [{"raw": "  \n"}], [{"raw": "..."}], [{"tokens": []}], [{}]],
)
def test_an_image_without_words_stops_or_is_skipped_and_listed(
    tmp_path: Path, sentences: Any
) -> None:
    empty = entry(sentences=sentences)
    with pytest.raises(CapscopeError, match=r"image 7 \(val2014/1.jpg\): (no reference|.*empty)"):
        read(tmp_path, empty)
    dataset = read(tmp_path, empty, entry(cocoid=8), policy="skip")
    assert [image.id for image in dataset.images] == [8]
    assert dataset.skipped[-1].image_id == 7
    assert dataset.skipped[-1].reason == "no reference"


def test_an_empty_reference_beside_others_is_left_out_under_skip(tmp_path: Path) -> None:
    mixed = entry(sentences=[{"raw": ""}, {"raw": "A cat."}])
    dataset = read(tmp_path, mixed, policy="skip")
    assert dataset.images[0].references == ("A cat.",)
    assert [one.reason for one in dataset.skipped] == ["reference 0 is empty"]


def test_a_reference_of_five_thousand_words_is_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, sentence("cat " * 5000)).images[0].tokens[0]) == 5000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, "image 7: unknown split 'dev'"),
        ({"split": ...}, "image 7: unknown split None"),
        ({"cocoid": "7"}, "whole number"),
        ({"cocoid": 7.0}, "whole number"),
        ({"cocoid": True}, "whole number"),
        ({"cocoid": -1}, "whole number"),
        ({"cocoid": 2**70}, "whole number"),
        ({"cocoid": ..., "imgid": ...}, "whole number"),
        ({"filename": ...}, "must be strings"),
        ({"filename": 3}, "must be strings"),
        ({"width": "640", "height": 2}, "'width' and 'height'"),
        ({"width": 0, "height": 2}, "'width' and 'height'"),
        ({"sentences": "a cat"}, "'sentences' must be a list"),
        ({"sentences": ["a cat"]}, r"sentences\[0\] is not an object"),
        ({"sentences": [{"raw": 3}]}, r"sentences\[0\]: 'raw' must be a string"),
        ({"sentences": [{"tokens": "a cat"}]}, "list of strings"),
        ({"sentences": [{"tokens": ["a", None]}]}, "list of strings"),
    ],
)
def test_a_wrong_entry_is_named_under_either_policy(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    for policy in ("fail", "skip"):
        with pytest.raises(CapscopeError, match=message) as caught:
            read(tmp_path, entry(**change), policy=policy)
        assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize(
    "file", ["../x.jpg", "/etc/passwd", "a/../../x", "C:/x.jpg", "..\\x.jpg", "x\0.jpg", "", "."]
)
def test_a_path_that_leaves_the_image_folder_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(CapscopeError, match=r"image 7: .* not a path inside the image folder"):
        read(tmp_path, entry(filename=file, filepath=""), policy="skip")


def test_a_folder_that_leaves_the_image_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match="not a path inside"):
        read(tmp_path, entry(filepath="../other"))


def test_a_link_that_leaves_the_image_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (tmp_path / "secret.jpg").touch()
    (root / "inside.jpg").touch()
    (root / "escape.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "up").symlink_to(tmp_path)
    (root / "good.jpg").symlink_to(root / "inside.jpg")
    files = ["escape.jpg", "up/secret.jpg", "good.jpg"]
    path = tmp_path / "dataset.json"
    entries = [entry(cocoid=i, filename=f, filepath="") for i, f in enumerate(files)]
    path.write_text(json.dumps({"images": entries}))
    dataset = read_karpathy(path, root, "toy")
    for number in (0, 1):
        with pytest.raises(CapscopeError, match=f"{files[number]} is a link that leaves"):
            dataset.path(dataset.by_id(number))
    assert dataset.path(dataset.by_id(2)) == root / "good.jpg"


def test_an_image_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    read(tmp_path, entry(filepath=""))
    dataset = read_karpathy(tmp_path / "dataset.json", tmp_path / "link", "toy")
    assert dataset.path(dataset.images[0]) == tmp_path / "link" / "1.jpg"


def test_an_id_that_occurs_twice_names_both_files(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match=r"id 7 occurs twice \(val2014/1.jpg, val2014/2.jpg\)"):
        read(tmp_path, entry(), entry(filename="2.jpg"))


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": 3}', '{"images": [3]}', "{", ""])
def test_a_file_of_another_layout_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(CapscopeError, match=r"dataset\.json"):
        read_karpathy(path, tmp_path, "toy")


def test_a_data_set_without_a_usable_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match="no usable image"):
        read(tmp_path, entry(sentences=[]), policy="skip")


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    first = read(
        tmp_path,
        entry(width=3, height=4, sentences=[{"raw": "A  cat\u2028 ☃", "tokens": ["a", "cat"]}]),
        entry(cocoid=9, split="shift", filepath=""),
    )
    path = tmp_path / "again.json"
    path.write_text(json.dumps(karpathy_json(first)), encoding="utf-8")
    assert read_karpathy(path, tmp_path, "toy").images == first.images
