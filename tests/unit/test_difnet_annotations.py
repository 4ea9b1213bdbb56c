"""Annotations of DIFNet's program as a data set in Karpathy's layout."""

import importlib.util
import json

import numpy as np
import pytest
from click.testing import CliRunner

from capscope.cli.importing import command
from capscope.data.annotations import read_karpathy
from capscope.errors import CapscopeError
from capscope.importers.difnet_annotations import SPLITS, read_annotations, spacy_rules


@pytest.fixture
def folder(tmp_path):
    for part, first in (("train2014", 1), ("val2014", 4)):
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(first, first + 3)]
        captions = [
            {"id": 10 * i + n, "image_id": i, "caption": f"A dog's ball, {i} {n}.\n"}
            for i in range(first, first + 3)
            for n in (0, 1)
        ]
        content = {"images": images, "annotations": captions}
        (tmp_path / f"captions_{part}.json").write_text(json.dumps(content))
    ids = {"train": [20, 21, 10], "restval": [40], "val": [51, 50], "test": [60, 61]}
    for split, (file, _) in SPLITS.items():
        np.save(tmp_path / file, ids[split])
    return tmp_path


def test_they_become_a_data_set(folder):
    out = folder / "dataset.json"
    result = CliRunner().invoke(
        command, ["difnet_annotations", "--annotations", str(folder), "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    dataset = read_karpathy(out, folder, "toy")
    found = [(image.file, image.split, len(image.references)) for image in dataset.images]
    assert found == [
        ("train2014/2.jpg", "train", 2),
        ("train2014/1.jpg", "train", 1),
        ("val2014/4.jpg", "restval", 1),
        ("val2014/5.jpg", "val", 2),
        ("val2014/6.jpg", "test", 2),
    ]
    assert dataset.images[0].tokens[0] == ("a", "dog", "'s", "ball", "2", "0")
    assert dataset.images[3].references[0] == "A dog's ball, 5 1."


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("coco_dev_ids.npy", [51, 99], r"coco_dev_ids.npy: captions_val2014.json has no .* id 99"),
        ("coco_dev_ids.npy", [[51]], "no array of ids: expected one row"),
        ("coco_dev_ids.npy", [object()], "no array of ids"),
        ("coco_dev_ids.npy", None, "coco_dev_ids.npy does not exist"),
        ("captions_val2014.json", {"images": []}, "does not hold COCO's captions"),
    ],
)
def test_what_does_not_fit_is_named(folder, file, content, message):
    path = folder / file
    path.unlink()
    if isinstance(content, list):
        np.save(path, np.array(content), allow_pickle=True)
    elif content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(CapscopeError, match=message):
        read_annotations(folder, "toy", str.split)


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed")
def test_without_spacy_an_error_says_what_to_do():
    with pytest.raises(CapscopeError, match="--words treebank"):
        spacy_rules()
