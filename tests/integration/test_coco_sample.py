"""Real photographs, references, boxes and ImageNet weights, where they are."""

import os
from pathlib import Path

import pytest
import torch
import torchvision

from capscope.data.annotations import open_dataset
from capscope.data.captions import open_captions, prepare_captions
from capscope.data.entities import read_instances
from capscope.data.images import read_image
from capscope.data.prepare import prepare_dataset
from capscope.features.grid import build_extractor
from capscope.params import Params, expand_path, load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def params() -> Params:
    before = Path.cwd()
    os.chdir(ROOT)  # the default of CAPSCOPE_DATA is relative to the repository
    try:
        chosen = load_params([Path("params.yaml"), Path("config/coco_sample.yaml")])
        karpathy = chosen["dataset"]["karpathy"]
        for key, path in karpathy.items():
            karpathy[key] = str(expand_path(path).resolve())
        grid = chosen["features"]["grid"]
        grid["weights"] = str(expand_path(grid["weights"]).resolve())
    finally:
        os.chdir(before)
    for path in (*karpathy.values(), grid["weights"]):
        if not Path(path).exists():
            pytest.skip(f"{path} is not here (CAPSCOPE_DATA names another folder)")
    return chosen


def test_the_overlay_names_a_data_set_that_can_be_prepared(params: Params, tmp_path: Path) -> None:
    prepare_dataset(tmp_path / "data", params["dataset"])
    dataset = open_dataset(tmp_path / "data", params)
    assert all(dataset.split(split) for split in ("train", "val", *params["dataset"]["evaluate"]))
    instances = read_instances(tmp_path / "data" / "instances.json")
    assert any(instances.objects(image.id) for image in dataset.split("test"))
    for image in dataset.images:
        for one in instances.objects(image.id):
            x, y, width, height = one.box
            assert image.width
            assert image.height
            assert x + width <= image.width + 1
            assert y + height <= image.height + 1
    prepare_captions(tmp_path / "vocabulary", tmp_path / "data", params, "gridtd")
    vocabulary, captions = open_captions(tmp_path / "vocabulary")
    assert len(vocabulary) > 300
    assert captions.image_ids.tolist() == [image.id for image in dataset.images]


def test_the_weights_see_what_torchvisions_network_sees(params: Params) -> None:
    extractor = build_extractor(params["features"]["grid"])
    whole = torchvision.models.squeezenet1_0(weights=None).eval()
    whole.load_state_dict(torch.load(params["features"]["grid"]["weights"], weights_only=True))
    root = Path(params["dataset"]["karpathy"]["images"])
    image = read_image(next(iter(sorted((root / "images").iterdir()))))
    pixels = extractor.preprocess(image)[None]
    with torch.no_grad():
        torch.testing.assert_close(extractor.network(pixels), whole.features(pixels))
    assert extractor.grid == (13, 13)
