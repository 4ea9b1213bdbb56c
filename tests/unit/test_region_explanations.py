"""Explaining captions over regions: features from the store, boxes painted, no pixels behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from toy_run import write_run

from capscope.cli import capscope
from capscope.data.annotations import read_karpathy
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.errors import CapscopeError
from capscope.explain import split
from capscope.explain.photograph import Photographer
from capscope.explain.raster import paint
from capscope.explain.split import explain_split, open_subject
from capscope.explain.store import RelevanceStore
from capscope.features.regions import Regions
from capscope.features.store import FeatureStore, create_region_store, grid_boxes
from capscope.files import write_json, write_manifest
from capscope.params import Params, load_params, merge
from capscope.report import gallery

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


class Quarters:
    """A detector that finds the four quarters of any image, and their mean colours."""

    most, dim, details = MOST, DIM, ()

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Regions]:
        return [self._of(image) for image in images]

    def _of(self, image: NDArray[np.uint8]) -> Regions:
        height, width = image.shape[:2]
        boxes = grid_boxes((2, 2))
        corners = (boxes * torch.tensor([width, height, width, height])).int().tolist()
        means = [image[y0:y1, x0:x1].mean((0, 1)) for x0, y0, x1, y1 in corners]
        cells = torch.tensor(np.pad(np.array(means) / 255, ((0, 0), (0, DIM - 3)))).float()
        return Regions(cells, boxes, (width, height))


def test_a_photograph_is_explained_by_the_regions_that_are_detected_in_it(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "load_extractor", lambda folder: Quarters())
    pixels = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    explained = Photographer(folders["run"], {}).explain(tmp_path / "photo.png", ["lrp", "gradcam"])
    for found in explained.found:
        assert found.boxes is not None
        assert found.regions is not None
        assert found.boxes[:4].tolist() == grid_boxes((2, 2)).tolist()
        assert (found.regions[:, 4:] == 0).all()
        quarter = found.maps.shape[-1] // 2
        corners = found.maps[:, [0, 0, quarter, quarter], [0, quarter, 0, quarter]]
        np.testing.assert_allclose(corners, found.regions[:, :4], rtol=1e-5)
    word = explained.captioned.words[-1]
    assert explained.only(word).found[0].regions.shape[1] == MOST
    out = tmp_path / "photo.explained.png"
    arguments = [tmp_path / "photo.png", "--run", folders["run"], "--out", out]
    done = CliRunner().invoke(capscope, ["explain", *map(str, arguments)])
    assert done.exception is None
    assert Image.open(out).width > 300


def test_photographs_need_what_made_the_features(folders: dict[str, Path], tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.png")
    with pytest.raises(CapscopeError, match="nothing that turns images into its features"):
        Photographer(folders["run"], {}).caption(tmp_path / "photo.png")


def test_the_gallery_outlines_regions(folders: dict[str, Path], params: Params) -> None:
    with explain(folders, params, "lrp") as store:
        stored = store[0]
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    with gallery._Store(folders["run"], "lrp", "test", "LRP") as opened:
        view = opened.view(stored.image_id)
    assert stored.boxes is not None
    np.testing.assert_array_equal(view.boxes, stored.boxes.numpy())
    np.testing.assert_allclose(view.regions, stored.grid.flatten(1).numpy())
    assert view.panel(picture, 0).shape == picture.shape
