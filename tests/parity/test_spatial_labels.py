"""Label files against the published script."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_networks import GOLDEN
from spatial_captioners import load

from capscope.data.annotations import read_karpathy
from capscope.data.labels import UNKNOWN, Labels, published_labels, read_labels, write_labels

FOLDER = GOLDEN / "spatial"


def toy() -> tuple[Labels, object]:
    golden = load("labels.npz")
    dataset = read_karpathy(FOLDER / "toy_dataset_coco.json", FOLDER, "toy")
    meta = golden.meta
    return published_labels(dataset.images, meta["threshold"], meta["max_length"]), golden


def test_words_and_ids_are_those_of_the_published_script() -> None:
    found, _ = toy()
    golden = load("labels.npz")
    assert list(found.vocabulary.words[1:]) == golden.arrays["vocab"].tolist()
    captions = found.captions
    for name, values in (
        ("labels", captions.labels),
        ("label_length", captions.lengths),
        ("label_start_ix", captions.first),
        ("label_end_ix", captions.last),
    ):
        np.testing.assert_array_equal(values, golden.arrays[name], name)
    talk = json.loads((FOLDER / "toy_talk.json").read_text())
    assert [dict(one) for one in found.images] == [
        {key: one[key] for key in ("split", "file_path", "id")} for one in talk["images"]
    ]
    unknown = found.vocabulary.unk
    assert unknown is None or found.vocabulary.words[unknown] == UNKNOWN


def test_written_files_are_what_the_published_script_writes_and_come_back(tmp_path: Path) -> None:
    found, _ = toy()
    words, labels = tmp_path / "data.json", tmp_path / "data_label.h5"
    write_labels(words, labels, found)
    talk = json.loads((FOLDER / "toy_talk.json").read_text())
    assert json.loads(words.read_text())["ix_to_word"] == talk["ix_to_word"]
    back = read_labels(words, labels)
    assert back.vocabulary == found.vocabulary
    assert back.captions.image_ids.tolist() == found.captions.image_ids.tolist()
    np.testing.assert_array_equal(back.captions.labels, found.captions.labels)


def test_batches_are_framed_as_the_published_loader_pads_them() -> None:
    from capscope.training.batches import frame

    golden, (found, _) = load("labels.npz"), toy()
    rows = np.arange(len(found.captions.labels))
    batch = frame(found.captions, rows, found.vocabulary)
    labels, masks = golden["loader_labels"], golden["loader_masks"]
    steps = batch.inputs.shape[1]
    assert batch.inputs.tolist() == labels[:, :steps].tolist()
    assert batch.targets.tolist() == labels[:, 1 : steps + 1].tolist()
    assert batch.valid.tolist() == (masks[:, 1 : steps + 1] > 0).tolist()
    assert not masks[:, steps + 1 :].any()


if not FOLDER.exists():
    pytest.skip(f"fixtures {FOLDER} are not here", allow_module_level=True)
