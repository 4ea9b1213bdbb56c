"""TSV files of the bottom-up detector read back: the program's own, and the authors' real file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bottom_up import FOLDER, golden

from capscope.data.annotations import Dataset, Image
from capscope.features.importing.sources import Entry, ImageNames
from capscope.features.importing.tsv import TsvSource
from capscope.features.regions import Regions, read_names

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("CAPSCOPE_DATA", ROOT / "../shared/data")) / "bu_tsv"


def read(path: Path) -> dict[str, Regions]:
    if not path.exists():
        pytest.skip(f"{path} is not here (CAPSCOPE_GOLDEN, CAPSCOPE_DATA name other folders)")
    source = TsvSource(path)
    try:
        return {entry.name: source.read(entry, unknown(entry)) for entry in list(source.scan())}
    finally:
        source.close()


def unknown(entry: Entry) -> Image:
    return Image(1, f"{entry.name}.jpg", "train", (), ())


def test_the_lines_of_the_first_program_hold_what_it_found() -> None:
    found = read(FOLDER / "script1_obj36.tsv")
    assert found
    for name, regions in found.items():
        expected = golden(f"image{name.removeprefix('img')}_normal")
        torch.testing.assert_close(regions.cells, expected["s1_features"], rtol=0, atol=0)
        torch.testing.assert_close(
            regions.pixel_boxes(), expected["s1_boxes"], rtol=1e-6, atol=1e-4
        )
        assert regions.scores is not None
        assert regions.class_ids is not None
        assert regions.attribute_ids is not None
        torch.testing.assert_close(regions.scores, expected["s1_scores"], rtol=0, atol=0)
        assert regions.class_ids.tolist() == expected["s1_classes"].tolist()
        assert not regions.attribute_ids.any()
        height, width = expected.arrays["image_raw_bgr"].shape[:2]
        assert regions.size == (width, height)


def test_the_authors_file_holds_the_decoded_sample() -> None:
    found = read(REAL / "train2014_obj36.tsv")
    expected = golden("real_caffe_tsv_sample").arrays
    for row, name in enumerate(expected["img_id"]):
        regions = found[str(name)]
        details: dict[str, Any] = {
            "objects_id": regions.class_ids,
            "objects_conf": regions.scores,
            "attrs_id": regions.attribute_ids,
            "attrs_conf": regions.attribute_scores,
        }
        for field, own in details.items():
            np.testing.assert_array_equal(own.numpy(), expected[field][row])
        first = expected["features_first6"][row]
        np.testing.assert_array_equal(regions.cells[: len(first)].numpy(), first)
        np.testing.assert_allclose(regions.pixel_boxes(), expected["boxes"][row], atol=1e-4)
        assert regions.size == tuple(expected["hw"][row][::-1])


def test_every_line_of_the_authors_file_is_sound() -> None:
    found = read(REAL / "train2014_obj36.tsv")
    lines = (REAL / "train2014_obj36.tsv").read_bytes().count(b"\n")
    assert len(found) == lines
    objects, attributes = (
        read_names(str(REAL / f"{kind}_vocab.txt")) for kind in ("objects", "attributes")
    )
    images = tuple(
        Image(number, path.name, "train", (), ())
        for number, path in enumerate(sorted(REAL.glob("*.jpg")))
    )
    names = ImageNames(Dataset("sample", REAL, images))
    assert {names.find(name) for name in found} == set(images)
    shapes = {regions.cells.shape for regions in found.values()}
    assert len(shapes) == 1
    for regions in found.values():
        assert regions.class_ids is not None
        assert regions.attribute_ids is not None
        assert int(regions.class_ids.max()) < len(objects)
        assert int(regions.attribute_ids.max()) < len(attributes)
        assert ((regions.boxes >= 0) & (regions.boxes <= 1)).all()
        assert (regions.boxes[:, 2:] > regions.boxes[:, :2]).all()
