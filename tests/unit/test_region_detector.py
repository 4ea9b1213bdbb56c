"""Detectors with published weights: from a file and pixels to regions, and back from a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_detector import SIZES, TOY, pictures, toy_network, write_published

import capscope.features.detector.build as build
import capscope.features.detector.network as network_module
from capscope.data.annotations import open_dataset
from capscope.data.images import read_image
from capscope.data.scenes import write_scenes
from capscope.errors import CapscopeError
from capscope.features.detector.backend import Found
from capscope.features.detector.network import Dimensions
from capscope.features.detector.published import matched_names, read_published
from capscope.features.detector.region_detector import PROCEDURES, RegionDetector, Rule
from capscope.features.extract_regions import prepare_regions
from capscope.features.extractor import build_detector, load_extractor
from capscope.features.regions import Regions, batch_of, pad_regions, region_fields
from capscope.features.store import FeatureStore
from capscope.files import sha256_of
from capscope.params import load_params, merge, validate
from capscope.tensors import write_tensors

ROOT = Path(__file__).parents[2]
MIXED = [(48, 64), (64, 48), (48, 64), (50, 50), (48, 64), (24, 32), (64, 48), (40, 100)]
SETTINGS: dict[str, Any] = {
    "network": "bottom_up",
    "regions": 8,
    "precision": "auto",
    "selection": {"procedure": "proposals", "least": 8, "parity": False},
    "bottom_up": {
        "backend": "torchvision",
        "sha256": None,
        "object_names": None,
        "attribute_names": None,
        "short_side": 96,
        "long_side": 192,
        "proposals": 40,
        "batch_size": 8,
    },
    "coco": {"short_side": 64, "long_side": 128, "proposals": 30, "batch_size": 2},
}


@pytest.fixture(autouse=True)
def _small_anchors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give anchors of a size that small images hold."""
    defaults = build.BottomUpNetwork.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "anchor_sizes", SIZES)


def assert_same(found: Regions, expected: Regions, tolerance: float = 0.0) -> None:
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
        else:
            assert one == other


@pytest.mark.parametrize("procedure", PROCEDURES)
@pytest.mark.slow
def test_a_batch_of_eight_gives_what_one_at_a_time_gives(procedure: str) -> None:
    images = pictures(MIXED)
    rule = Rule(procedure, 10, 20)
    seen: list[int] = []
    detector = RegionDetector(toy_network(), rule, {}, batch_size=8, device="cpu")
    together = detector.detect(images, seen.append)
    assert sum(seen) == len(images)
    alone = RegionDetector(toy_network(), rule, {}, device="cpu")
    for image, found in zip(images, together, strict=True):
        assert_same(found, alone.detect([image])[0], 1e-4)
        assert found.size == (image.shape[1], image.shape[0])
        assert len(found.cells) > 0


def test_only_images_of_one_size_share_a_batch() -> None:
    detector = RegionDetector(toy_network(), Rule(), {}, batch_size=2, device="cpu")
    groups = list(detector.batches(pictures(MIXED)))
    assert sorted(number for group in groups for number in group) == list(range(len(MIXED)))
    assert max(map(len, groups)) == 2
    sizes = [{detector.backend.bucket(MIXED[number]) for number in group} for group in groups]
    assert all(len(group) == 1 for group in sizes)
    # (24, 32) becomes as large as (48, 64), and shares its batches.
    assert len(groups) == 2 + 1 + 1 + 1


def test_regions_fit_the_store_and_the_captioner() -> None:
    rule = Rule("per_class", 5, 12)
    detector = RegionDetector(toy_network(), rule, {}, batch_size=4, device="cpu")
    found = detector.detect(pictures(MIXED))
    fields = region_fields(detector.most, detector.dim, "float32", detector.details)
    rows = pad_regions(found, fields)
    assert rows["regions"].shape == (len(MIXED), 12, TOY.dim)
    assert (rows["class_ids"] < TOY.classes).all()
    assert (rows["attribute_ids"] < TOY.attributes).all()
    assert batch_of(found, detector.most).cells.shape == (len(MIXED), 12, TOY.dim)
    for one in found:
        assert one.scores is not None
        assert ((one.scores > 0) & (one.scores <= 1)).all()
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()


def test_a_region_without_area_is_dropped_from_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = RegionDetector(toy_network(), Rule("best_class", 1, 9), {}, device="cpu")
    size = (96, 128)
    boxes = torch.tensor([[0.0, 0, 50, 50], [130, 0, 140, 50], [60, 60, 90, 90]])
    count = len(boxes)
    logits = torch.zeros(count, TOY.classes + 1)
    logits[torch.arange(count), torch.arange(count)] = torch.tensor([5.0, 9.0, 7.0])
    found = Found(
        boxes,
        torch.arange(3.0)[:, None],
        logits,
        torch.zeros(count, 4 * TOY.classes),
        torch.eye(count, TOY.attributes + 1),
    )
    regions = detector.regions(found, size, (48, 64))
    assert regions.cells[:, 0].tolist() == [2.0, 0.0]
    assert regions.class_ids is not None
    assert regions.attribute_ids is not None
    assert regions.class_ids.tolist() == [2, 0]
    assert regions.attribute_ids.tolist() == [2, 0]
    assert len(regions.boxes) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_images_of_any_shape_have_regions(size: tuple[int, int]) -> None:
    detector = RegionDetector(toy_network(), Rule("proposals", 3, 5), {}, device="cpu")
    (found,) = detector.detect(pictures([size]))
    assert 3 <= len(found.cells) <= 5
    assert found.cells.isfinite().all()
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()


def test_given_boxes_are_described_where_they_are() -> None:
    detector = RegionDetector(toy_network(), Rule("proposals", 6, 6), {}, device="cpu")
    images = pictures(MIXED[:3])
    found = detector.detect(images)
    again = detector.describe(images, [one.boxes for one in found])
    for one, other in zip(again, found, strict=True):
        assert_same(one, other, 1e-3)


def test_half_precision_is_for_convolutions_and_comes_close() -> None:
    images = pictures(MIXED[:3])
    exact = RegionDetector(toy_network(), Rule(), {}, device="cpu")
    rough = RegionDetector(toy_network(), Rule(), {}, device="cpu", precision="bfloat16")
    found = exact.detect(images)
    again = rough.describe(images, [one.boxes for one in found])
    for one, other in zip(again, found, strict=True):
        assert one.cells.dtype == torch.float32
        assert torch.cosine_similarity(one.cells, other.cells).mean() > 0.95
    assert all(len(one.cells) == 36 for one in rough.detect(images))


@pytest.mark.slow
def test_published_weights_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    state = write_published(path, toy_network())
    found = read_published(path, sha256_of(path).upper())
    assert set(found) == set(state)
    assert all(found[name].equal(tensor) for name, tensor in state.items())
    assert Dimensions.of(found) == TOY


def test_anchors_in_the_weights_are_ignored_and_lacking_statistics_are_none(tmp_path: Path) -> None:
    state = toy_network().state_dict()
    kept = {name: tensor for name, tensor in state.items() if "running" not in name}
    kept["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(12, 4)
    kept["backbone.stem.conv1.norm.num_batches_tracked"] = torch.tensor(3)
    path = tmp_path / "weights.safetensors"
    write_tensors(path, kept)
    found = read_published(path)
    assert set(found) == set(state)
    for name, tensor in found.items():
        if "running" in name:
            assert tensor.equal(torch.full_like(tensor, float(name.endswith("var"))))


@pytest.mark.parametrize("attributes", [0, 5])
def test_names_may_be_ends_of_the_network_s(attributes: int) -> None:
    sizes = Dimensions((3, 4, 6), 8, 4, 16, 16, classes=3, attributes=attributes)
    state = toy_network(sizes).state_dict()
    short = {
        name.removeprefix("backbone.").removeprefix("roi_heads."): tensor
        for name, tensor in state.items()
    }
    found = matched_names(short, "weights")
    assert set(found) == set(state)
    assert all(found[name].equal(tensor) for name, tensor in state.items())


def built(path: Path, **changes: Any) -> RegionDetector:
    own = {**SETTINGS["bottom_up"], **changes}
    detector = build_detector({**SETTINGS, "weights": str(path), "bottom_up": own})
    assert isinstance(detector, RegionDetector)
    return detector


def test_parameters_and_a_file_make_a_detector_that_comes_back_from_a_folder(
    tmp_path: Path,
) -> None:
    weights, names = tmp_path / "weights.safetensors", tmp_path / "names.txt"
    write_tensors(weights, toy_network().state_dict())
    lines = [f"Name{n} , other" for n in range(TOY.classes)]
    names.write_text("\n".join(lines))  # as published: no end of the last line
    detector = built(weights, object_names=str(names))
    spec = detector.spec()
    assert spec["class_names"] == [f"name{n}" for n in range(TOY.classes)]
    assert "attribute_names" not in spec
    assert spec["selection"] == {**SETTINGS["selection"], "most": 8, "proposals": 40}
    detector.save(tmp_path / "run")
    again = load_extractor(tmp_path / "run")
    assert isinstance(again, RegionDetector)
    assert again.spec() == spec
    images = pictures(MIXED[:2])
    for one, other in zip(again.detect(images), detector.detect(images), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "not 0000"),
        ({"object_names": "{folder}/none.txt"}, r"none\.txt cannot be read"),
        ({"object_names": "{folder}/short.txt"}, r"short\.txt has 1 names, the weights know 12"),
    ],
)
def test_what_does_not_belong_together_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_tensors(tmp_path / "weights.safetensors", toy_network().state_dict())
    (tmp_path / "short.txt").write_text("one\n")
    filled = {
        key: value.format(folder=tmp_path) if isinstance(value, str) else value
        for key, value in changes.items()
    }
    with pytest.raises(CapscopeError, match=message):
        built(tmp_path / "weights.safetensors", **filled)


def test_absent_weights_say_where_weights_are_from(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match=r"none\.pkl do not exist\. The Visual Genome weights"):
        built(tmp_path / "none.pkl")
    with pytest.raises(CapscopeError, match=r"is 'download'\. The Visual Genome weights"):
        build_detector({**SETTINGS, "weights": "download"})


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"features.0.weight": torch.zeros(3)})
    with pytest.raises(CapscopeError, match="no weights of a bottom-up detector"):
        built(path)
    network = toy_network()
    state = network.state_dict()
    del state["backbone.res3.2.conv1.weight"]
    write_tensors(path, state)
    with pytest.raises(CapscopeError, match=r"missing backbone\.res3\.2\.conv1\.weight"):
        built(path)


def test_a_detector_with_other_anchors_is_refused() -> None:
    with pytest.raises(CapscopeError, match="12 anchors a cell, not 3 of each of 2 sizes"):
        TOY.check_anchors((64, 128))


def test_a_back_end_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tensors(tmp_path / "weights.safetensors", toy_network().state_dict())
    monkeypatch.setitem(sys.modules, "capscope.features.detector.detectron2_backend", None)
    with pytest.raises(CapscopeError, match=r"envs/detectron2\.yaml"):
        built(tmp_path / "weights.safetensors", backend="detectron2")


def test_memory_is_bounded_by_chunks_of_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(MIXED[:2])
    detector = RegionDetector(toy_network(), Rule(), {}, device="cpu")
    whole = detector.detect(images)
    monkeypatch.setattr(network_module, "CHUNK", 7)
    parts = detector.detect(images)
    for one, other in zip(parts, whole, strict=True):
        assert_same(one, other, 1e-4)


def test_a_data_set_becomes_a_store_of_regions_with_a_detector_beside_it(tmp_path: Path) -> None:
    scenes = {"seed": 5, "size": 64, "train": 4, "val": 2, "test": 1, "shift": 0, "bias": 0.85}
    write_scenes(tmp_path / "data", scenes)
    weights = tmp_path / "weights.safetensors"
    write_tensors(weights, toy_network().state_dict())
    regions = {**SETTINGS, "weights": str(weights), "batch_size": 5, "dtype": "float32"}
    overlay = {"dataset": {"scenes": scenes}, "features": {"regions": regions}}
    params = merge(load_params([ROOT / "params.yaml"]), overlay)
    validate(params)
    out = tmp_path / "regions"
    prepare_regions(out, tmp_path / "data", params)
    store = FeatureStore.open(out)
    detector = load_extractor(out)
    assert isinstance(detector, RegionDetector)
    assert len(store) == 7
    assert (store.dim, store.grid) == (TOY.dim, (8, 1))
    store.check_same_kind(detector.spec() | {"kind": "regions", "regions": 8, "dim": TOY.dim}, "it")
    dataset = open_dataset(tmp_path / "data", params)
    for image in dataset.images[:2]:
        (expected,) = detector.detect([np.asarray(read_image(dataset.path(image)))])
        assert_same(store.regions(image.id), expected, 1e-4)
