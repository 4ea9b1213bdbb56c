"""The published data file: golden/rnn_family/coco_mini.pt and how the original decodes it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capscope.data.annotations import open_dataset
from capscope.data.coco_pt import SPECIAL, UNKNOWN
from capscope.data.prepare import prepare_dataset

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = GOLDEN / "rnn_family" / "coco_mini.pt"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    settings = {
        "name": "coco_pt",
        "reader": "coco_pt",
        "coco_pt": {"file": str(path)},
        "downloads": [],
        "on_unreadable": "skip",
        "evaluate": ["val"],
    }
    out = tmp_path_factory.mktemp("coco_pt") / "data"
    prepare_dataset(out, settings)
    return torch.load(path, weights_only=True), open_dataset(out, {"dataset": settings})


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.slow
def test_every_picture_is_the_published_one(prepared, split):
    content, dataset = prepared
    for image in dataset.split(split):
        row = int(Path(image.file).stem)
        found = np.asarray(Image.open(dataset.path(image))).transpose(2, 0, 1)
        assert np.array_equal(found, content[f"{split}_images"][row].numpy())


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_reference_is_what_the_original_decodes_without_its_marks(prepared, split):
    _, dataset = prepared
    decoded = json.loads((GOLDEN / "rnn_family" / "coco_mini_decoded.json").read_text("utf-8"))
    if f"decoded_{split}" not in decoded:
        pytest.skip(f"the fixture has no decoded captions of {split}")
    marks = {SPECIAL["start"], SPECIAL["end"]}
    images = {int(Path(image.file).stem): image for image in dataset.split(split)}
    for row, sentence in enumerate(decoded[f"decoded_{split}"]):
        words = [word for word in sentence.split() if word not in marks]
        words = [UNKNOWN if word == SPECIAL["unk"] else word for word in words]
        if words:
            assert list(images[row].tokens[0]) == words
        else:
            assert row not in images
