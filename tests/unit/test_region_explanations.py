"""Explaining captions over regions: features from the store, boxes painted, no pixels behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_run import write_run

from capscope.data.annotations import read_karpathy
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.explain.raster import paint
from capscope.explain.split import explain_split, open_subject
from capscope.explain.store import RelevanceStore
from capscope.features.regions import Regions
from capscope.features.store import FeatureStore, create_region_store
from capscope.files import write_json, write_manifest
from capscope.params import Params, load_params, merge

SETTINGS = {"seed": 3, "size": 32, "train": 1, "val": 1, "test": 4, "shift": 0, "bias": 0.8}
MOST, DIM, MAP = 6, 5, 16


@pytest.fixture(scope="module")
def params() -> Params:
    overlay: dict[str, Any] = {
        "dataset": {"scenes": SETTINGS, "evaluate": ["test"]},
        "explanations": {"images": 4, "batch_size": 3, "map_size": MAP},
    }
    return merge(load_params([Path(__file__).parents[2] / "params.yaml"]), overlay)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data, random regions, and an untrained run over them."""
    root = tmp_path_factory.mktemp("regions")
    folders = {name: root / name for name in ("data", "features", "run")}
    write_scenes(folders["data"], SETTINGS)
    dataset = read_karpathy(folders["data"] / "dataset.json", folders["data"], "scenes")
    generator = torch.Generator().manual_seed(0)
    regions = []
    for image in dataset.images:
        count = 3 + image.id % 4
        corners = torch.rand(count, 2, 2, generator=generator).sort(1).values
        cells = torch.rand(count, DIM, generator=generator)
        regions.append(Regions(cells, corners.flatten(1), (32, 32)))
    ids = [image.id for image in dataset.images]
    folders["features"].mkdir()
    with create_region_store(
        folders["features"],
        ids,
        regions=MOST,
        dim=DIM,
        dtype="float32",
        attributes={"network": "toy"},
        details=(),
    ) as writer:
        writer.append(regions)
    write_manifest(folders["features"], "features", params={})
    vocabulary = build_vocabulary([t for image in dataset.images for t in image.tokens], 1)
    torch.manual_seed(1)
    store = FeatureStore.open(folders["features"])
    write_run(folders["run"], None, vocabulary, store.attributes)
    captions = [
        {"image_id": image.id, "word_ids": vocabulary.encode(image.tokens[k % 5])}
        for k, image in enumerate(dataset.split("test"))
    ]
    write_json(folders["run"] / "decoded" / "test.json", captions)
    return folders


def explain(folders: dict[str, Path], params: Params, explainer: str) -> RelevanceStore:
    out = folders["run"] / "relevance"
    data, features, run = folders["data"], folders["features"], folders["run"]
    explain_split(run, data, features, out, params, split="test", explainers=[explainer])
    return RelevanceStore(out / explainer / "test")


@pytest.mark.parametrize("name", ["lrp", "attention", "gradcam", "integrated_gradients"])
def test_regions_are_painted_where_they_are(
    name: str, folders: dict[str, Path], params: Params
) -> None:
    features = FeatureStore.open(folders["features"])
    with explain(folders, params, name) as store:
        assert store.grid == (MOST, 1)
        assert store.image_size == MAP
        for stored in store:
            own = features.read([stored.image_id])
            assert stored.boxes is not None
            assert stored.pixels is not None
            assert stored.boxes.equal(own.boxes[0])
            relevance = stored.grid.flatten(1)
            painted = paint(relevance[None], own.boxes, MAP)[0]
            torch.testing.assert_close(stored.pixels, painted, atol=2e-3, rtol=2e-3)
            if own.valid is not None:
                assert relevance[:, ~own.valid[0]].eq(0).all()


def test_relevance_of_regions_is_that_of_the_stored_features(
    folders: dict[str, Path], params: Params
) -> None:
    from capscope.explain.lrp import LRP

    _, subject = open_subject(folders["run"], folders["features"])
    assert subject.image_size is None
    features = FeatureStore.open(folders["features"])
    with explain(folders, params, "lrp") as store:
        for stored in store:
            word_ids = subject.inputs(torch.tensor([stored.word_ids]))
            lengths = torch.tensor([len(stored.word_ids)])
            found = LRP(subject).explain(None, features.read([stored.image_id]), word_ids, lengths)
            torch.testing.assert_close(stored.grid.flatten(1), found.grid[0], atol=1e-3, rtol=1e-3)
