"""Label files that do not fit their words, or themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from capscope.data.annotations import Dataset, Image
from capscope.data.captions import open_captions
from capscope.data.labels import published_labels, read_labels, write_labels
from capscope.errors import CapscopeError
from capscope.importers.spatial_labels import import_labels

IMAGES = [
    Image(7, "a.jpg", "train", ("a dog", "a cat"), (("a", "dog"), ("a", "cat"))),
    Image(9, "b.jpg", "val", ("a dog runs far",), (("a", "dog", "runs", "far"),)),
]


def written(folder: Path) -> tuple[Path, Path]:
    words, labels = folder / "w.json", folder / "l.h5"
    write_labels(words, labels, published_labels(IMAGES, threshold=1, max_length=3))
    return words, labels


def test_rare_words_become_unknown_and_long_references_are_cut(tmp_path: Path) -> None:
    found = read_labels(*written(tmp_path))
    assert found.vocabulary.words == ("<end>", "a", "dog", "UNK")
    assert found.captions.labels.tolist() == [[1, 2, 0], [1, 3, 0], [1, 2, 3]]
    assert [one["id"] for one in found.images] == [7, 9]


def change(name: str, values: Any) -> Callable[[h5py.File], None]:
    def apply(file: h5py.File) -> None:
        del file[name]
        if values is not None:
            file[name] = np.array(values, np.uint32)

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("labels", None), "is not a file of labels"),
        (change("labels", [[1, 2, 0], [1, 9, 0], [1, 2, 3]]), "word id 9, but .* has 3 words"),
        (change("label_length", [2, 2, 2]), "label_length is not the number of words"),
        (change("label_end_ix", [1, 3]), "do not divide its 3 rows"),
        (change("label_start_ix", [1]), r"references of 1 images, but .* lists 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, edit: Callable[[h5py.File], None], message: str
) -> None:
    words, labels = written(tmp_path)
    with h5py.File(labels, "a") as file:
        edit(file)
    with pytest.raises(CapscopeError, match=message):
        read_labels(words, labels)


def test_words_without_numbers_are_refused(tmp_path: Path) -> None:
    words, labels = written(tmp_path)
    words.write_text(json.dumps({"ix_to_word": {"1": "a", "3": "b"}, "images": []}))
    with pytest.raises(CapscopeError, match='with the keys "1", "2"'):
        read_labels(words, labels)


def test_an_image_without_references_is_refused() -> None:
    with pytest.raises(CapscopeError, match="image 3 has no reference"):
        published_labels([Image(3, "c.jpg", "train", (), ())])


def test_label_files_become_a_vocabulary_to_train_with(tmp_path: Path) -> None:
    words, labels = written(tmp_path)
    dataset = Dataset("toy", tmp_path, tuple(IMAGES))
    import_labels(words, labels, tmp_path / "out", dataset)
    vocabulary, captions = open_captions(tmp_path / "out")
    expected = published_labels(IMAGES, threshold=1, max_length=3)
    assert vocabulary == expected.vocabulary
    assert captions.labels.tolist() == expected.captions.labels.tolist()
    assert captions.rows_of(9) == range(2, 3)
    strangers = (*IMAGES, replace(IMAGES[0], id=8, file="c.jpg"))
    with pytest.raises(CapscopeError, match=r"no references of 1 training images of toy \(ids 8"):
        import_labels(words, labels, tmp_path / "out", Dataset("toy", tmp_path, strangers))
