"""The published preparation of captions and boxes: golden/lrp_ic/dataset.npz, exact."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capscope.data.annotations import Dataset, read_karpathy
from capscope.data.captions import encode_captions, published_draw, published_items
from capscope.data.entities import coco_entities, parse_instances
from capscope.data.vocabulary import Vocabulary, build_vocabulary

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden"))


@pytest.fixture(scope="module")
def fixture() -> dict[str, Any]:
    path = GOLDEN / "lrp_ic" / "dataset.npz"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    arrays = np.load(path)
    return {name: json.loads(str(arrays[name])) for name in arrays.files}


def published(fixture: dict[str, Any], prefix: str) -> Any:
    (name,) = (name for name in fixture if name.startswith(f"out.{prefix}"))
    return fixture[name]


@pytest.fixture(scope="module")
def dataset(fixture: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("karpathy") / "dataset.json"
    path.write_text(json.dumps(fixture["karpathy_json"]), encoding="utf-8")
    return read_karpathy(path, path.parent, fixture["meta"]["dataset"])


@pytest.fixture(scope="module")
def vocabulary(fixture: dict[str, Any], dataset: Dataset) -> Vocabulary:
    sentences = (words for image in dataset.split("train") for words in image.tokens)
    return build_vocabulary(sentences, fixture["meta"]["min_word_freq"])


def test_the_vocabulary_is_the_published_word_map(
    fixture: dict[str, Any], vocabulary: Vocabulary
) -> None:
    word_map = published(fixture, "wordmap_")
    assert {word: number for number, word in enumerate(vocabulary.words)} == word_map
    names = {"pad": "<pad>", "start": "<start>", "end": "<end>", "unk": "<unk>"}
    for attribute, word in names.items():
        assert getattr(vocabulary, attribute) == word_map[word]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_drawn_and_encoded_captions_are_the_published_items(
    fixture: dict[str, Any], dataset: Dataset, vocabulary: Vocabulary, split: str
) -> None:
    expected = published(fixture, f"{split}_imagecap_")
    image_root = expected[0]["image_path"].split("/")[0]
    meta = fixture["meta"]
    items = published_items(
        dataset, vocabulary, meta["max_len"], image_root, meta["captions_per_image"]
    )
    assert items[split] == expected


def test_the_draw_is_an_option_of_the_encoding_and_gives_the_same_captions(
    fixture: dict[str, Any], dataset: Dataset, vocabulary: Vocabulary
) -> None:
    meta = fixture["meta"]
    draw = published_draw(meta["captions_per_image"], meta["rng_seed_in_original"])
    images = dataset.split("train") + dataset.split("val") + dataset.split("test")
    captions = encode_captions(images, vocabulary, meta["max_len"], draw)
    rows = [row[1 : length - 1] for row, length in published_rows(fixture)]
    assert [
        labels[:length].tolist()
        for labels, length in zip(captions.labels, captions.lengths, strict=True)
    ] == rows


def published_rows(fixture: dict[str, Any]) -> list[tuple[list[int], int]]:
    rows = [(one["encoded_cap"], one["caption_len"]) for one in published(fixture, "train_")]
    for split in ("val_", "test_"):
        for one in published(fixture, split):
            rows += zip(one["encoded_all_caps"], one["caption_len"], strict=True)
    return rows


def test_the_entities_are_the_published_file(fixture: dict[str, Any]) -> None:
    instances = parse_instances(fixture["instances_json"], "instances_json")
    assert coco_entities(instances) == fixture["out.COCOvalEntities.json"]
