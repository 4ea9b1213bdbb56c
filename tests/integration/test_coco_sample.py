"""Real photographs, references, boxes and ImageNet weights, where they are."""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from capscope.benchmarks.contribution import measure_contributions
from capscope.data.annotations import open_dataset
from capscope.data.captions import open_captions, prepare_captions
from capscope.data.entities import read_instances
from capscope.data.images import read_image
from capscope.data.prepare import prepare_dataset
from capscope.decoding.captions import decode_run
from capscope.explain.split import explain_split
from capscope.explain.store import RelevanceStore
from capscope.features.extract import prepare_features
from capscope.features.grid import build_extractor
from capscope.features.importing.write import import_features
from capscope.files import read_json, write_json
from capscope.params import Params, expand_path, load_params
from capscope.training.run import train_run

ROOT = Path(__file__).parents[2]
SYSTEMS = ("base", "difnet")


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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def photographs(params: Params, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Some photographs with their cells, and segments from the boxes of their objects."""
    folder = tmp_path_factory.mktemp("photographs")
    chosen: dict[str, Any] = deepcopy(dict(params))
    family = load_params([ROOT / "params.yaml", ROOT / "config" / "difnet.yaml"])["systems"]
    karpathy = chosen["dataset"]["karpathy"]
    whole = read_json(Path(karpathy["annotations"]))
    kept = []
    for split, count in (("train", 16), ("val", 2), ("test", 4)):
        kept += [image for image in whole["images"] if image["split"] == split][:count]
    karpathy["annotations"] = str(folder / "some.json")
    write_json(folder / "some.json", {**whole, "images": kept})
    chosen["features"]["grid"] |= {"pool": 7, "image_size": 112}
    for name in SYSTEMS:
        chosen["systems"][name] = family[name]
        chosen["systems"][name]["xe"] |= {"epochs": 1, "epoch_steps": 40, "validation_images": 2}
        chosen["systems"][name]["xe"]["learning_rate"] = 0.003
        chosen["systems"][name]["vocabulary"]["min_count"] = 4
    places = {name: folder / name for name in ("data", "cells", "features", "vocabulary")}
    prepare_dataset(places["data"], chosen["dataset"])
    prepare_features(places["cells"], places["data"], chosen)
    boxes = Path(karpathy["instances"])
    sources = [("store", places["cells"]), ("segments_instances", boxes)]
    import_features(sources, places["data"], chosen, places["features"])
    prepare_captions(places["vocabulary"], places["data"], chosen, SYSTEMS[0])
    write_json(folder / "params.json", chosen)
    return {**places, "params": folder / "params.json"}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_base_and_difnet_learn_from_photographs_and_are_explained(
    system: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    """Segments are those of the photographs' boxes."""
    chosen = read_json(photographs["params"])
    run = tmp_path / "run"
    places = [photographs[name] for name in ("data", "vocabulary", "features")]
    assert train_run(run, *places, chosen, system=system, stage="xe", seed=1)
    folders = (run, photographs["data"], photographs["features"])
    decode_run(*folders, chosen, split="test", out=run / "decoded" / "test.json")
    explained = {"split": "test", "explainers": ["lrp", "alpha_beta_lrp"]}
    explain_split(*folders, run / "relevance", chosen, **explained)
    stores = [
        RelevanceStore(run / "relevance" / name / "test") for name in ("lrp", "alpha_beta_lrp")
    ]
    assert [len(store) for store in stores] == [4, 4]
    kinds = {
        (one.word_kind, one.measure) for one in measure_contributions(stores, resamples=10, seed=1)
    }
    assert {("all", "vision"), ("all", "language"), ("position 1", "entropy")} <= kinds
    assert (("all", "segments") in kinds) == (system == "difnet")
