"""A folder of images and a CSV of captions is a data set, and what is wrong with one is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bad_images import picture

from capscope.data.annotations import open_dataset
from capscope.data.prepare import prepare_dataset
from capscope.errors import CapscopeError
from capscope.params import load_params

ROOT = Path(__file__).parents[2]
HEADER = "image,caption\n"


def settings_of(folder: Path, **own: Any) -> dict[str, Any]:
    chosen = load_params([ROOT / "params.yaml"])["dataset"]
    named = {"captions": str(folder / "captions.csv"), "images": str(folder / "images")}
    source = {**chosen["captions_csv"], **named, **own}
    named = {"name": "mine", "reader": "captions_csv", "evaluate": ["test"]}
    return {**chosen, **named, "captions_csv": source}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png", "more/d.png"):
        picture().save(tmp_path / "images" / name)
    return tmp_path


def write(folder: Path, text: str | bytes) -> dict[str, Any]:
    file = folder / "captions.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return settings_of(folder)


def test_rows_become_references_and_the_column_split_is_taken(folder: Path) -> None:
    settings = write(
        folder,
        "image,caption,split,rater\n"
        'a.png,"A dog, that runs.",train,1\n'
        "b.png,A cat.,val,1\n"
        "./a.png,A dog.,train,2\n"
        "more/d.png,Über den Fluß.,test,2\n",
    )
    prepare_dataset(folder / "data", settings)
    dataset = open_dataset(folder / "data", {"dataset": settings})
    assert [image.split for image in dataset.images] == ["train", "val", "test"]
    first, _, last = dataset.images
    assert first.references == ("A dog, that runs.", "A dog.")
    assert last.tokens == (("über", "den", "fluß"),)
    assert dataset.path(last) == folder / "images" / "more" / "d.png"
    assert [image.id for image in dataset.images] == [1, 2, 3]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_write_is_read(folder: Path, delimiter: str) -> None:
    lines = [("Image", "Caption"), ("a.png", "one"), ("b.png", "two"), ("c.png", "three")]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    dataset = prepare_dataset(folder / "data", write(folder, b"\xef\xbb\xbf" + text.encode()))
    assert [image.references for image in dataset.images] == [("one",), ("two",), ("three",)]


def test_splits_are_drawn_by_the_names_of_files(folder: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    for name in names:
        picture().save(folder / "images" / name)

    def drawn(order: list[str], **own: Any) -> dict[str, str]:
        write(folder, HEADER + "".join(f"{name},words\n" for name in order))
        dataset = prepare_dataset(folder / "data", settings_of(folder, **own))
        return {image.file: image.split for image in dataset.images}

    found = drawn(names)
    assert Counter(found.values()) == {"train": 32, "val": 4, "test": 4}
    assert drawn(names[::-1]) == found
    assert drawn(names, seed=2) != found
    assert Counter(drawn(names, val=0.25, test=0.001).values()) == {
        "train": 29,
        "val": 10,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no column image and no column caption among .* \(none\)"),
        ("file,caption\na.png,x\n", r"no column image among .* \(file, caption\)"),
        (HEADER + "a.png,a dog, a cat\n", "line 2 has 3 fields, the first line 2; put a caption"),
        (HEADER + 'a.png,"open\n', "line 2 is not CSV"),
        (b"image,caption\na.png,\xfcber\n", "byte 20 is not UTF-8"),
        (HEADER + "../a.png,x\n", r"line 2: '../a.png' is not a path inside the image folder"),
        (HEADER + "a.png,x\nb.png,\nc.png,z\n", r"image 2 \(b.png\): reference 0 is empty"),
        (HEADER + "a.png,x\nb.png,y\n", "has 2 images: 1 for val and 1 for test leave none"),
        ("image,caption,split\na.png,x,train\na.png,y,val\n", "a.png is of train and of val"),
        ("image,caption,split\na.png,x,dev\n", "image 1: unknown split 'dev'; known: train"),
        ("image,caption,split\na.png,x,\n", "image 1: unknown split ''; known: train"),
        (HEADER + "a.png,x\nb.png,y\nnone.png,z\n", r"none\.png is missing"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(CapscopeError, match=message):
        prepare_dataset(folder / "data", write(folder, text))
    assert not (folder / "data").exists()


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(CapscopeError, match=r"captions\.csv does not exist"):
        prepare_dataset(folder / "data", settings_of(folder))
    settings = settings_of(folder, captions=None)
    with pytest.raises(CapscopeError, match=r"dataset\.captions_csv\.captions is not set"):
        prepare_dataset(folder / "data", settings)
