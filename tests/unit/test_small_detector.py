"""The demo's detector: its targets and selection against slow twins, its training on scenes."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from capscope.data.annotations import DATASET_FILE, INSTANCES_FILE, read_karpathy
from capscope.data.entities import read_instances
from capscope.data.scenes import read_recipes, write_scenes
from capscope.errors import CapscopeError
from capscope.features import backbone
from capscope.features.detector.small import (
    OVERLAPS,
    RegionNetwork,
    cell_centres,
    move,
    select,
    shifts,
    windows,
)
from capscope.features.detector.small_detector import SmallDetector, edges
from capscope.features.detector.targets import (
    ATTRIBUTE_NAMES,
    CLASS_NAMES,
    MATCH,
    Truth,
    box_targets,
    cell_targets,
    read_truth,
    shaken,
)
from capscope.features.detector.train_small import train_detector
from capscope.features.extract_regions import prepare_regions
from capscope.features.extractor import load_extractor, look
from capscope.features.store import FeatureStore
from capscope.files import MANIFEST, write_manifest
from capscope.params import Params, load_params, merge

ROOT = Path(__file__).parents[2]
SCENES = {"seed": 5, "size": 64, "train": 10, "val": 4, "test": 2, "shift": 0, "bias": 0.85}
BACKBONE = {"channels": [4, 8, 8], "epochs": 1, "batch_size": 5, "learning_rate": 0.01, "seed": 2}
DETECTOR = {
    **{"hidden": 8, "size": 12, "bins": 2, "epochs": 2, "batch_size": 4},
    **{"learning_rate": 0.01, "seed": 3},
}
FILES = ("model.safetensors", "model.json", "metrics.csv", "manifest.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    write_scenes(out, SCENES)
    return out


@pytest.fixture(scope="module")
def trunk(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("backbone")
    backbone.train_backbone(data, BACKBONE, out)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, trunk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector")
    train_detector(data, trunk, DETECTOR, 64, out)
    return out


@pytest.fixture(scope="module")
def params() -> Params:
    regions = {"image_size": 64, "regions": 9, "batch_size": 4, "dtype": "float32"}
    overlay = {"dataset": {"scenes": SCENES}, "features": {"regions": regions}}
    return merge(load_params([ROOT / "params.yaml"]), overlay)


@pytest.fixture(scope="module")
def extracted(
    data: Path, trained: Path, params: Params, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("regions")
    prepare_regions(out, data, params, trained)
    return out


def boxes(count: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, 2, generator=rng).sort(1).values.flatten(1)


def iou(one: list[float], other: list[float]) -> float:
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return wide * high / (area - wide * high)


@pytest.mark.parametrize("most", [5, 20, 70])
def test_selection_drops_overlapping_boxes_at_the_first_threshold_that_leaves_enough(
    most: int,
) -> None:
    own = torch.cat([boxes(40), boxes(40) + 0.01])
    scores = torch.rand(80, generator=torch.Generator().manual_seed(1))
    expected: list[int] = []
    for threshold in OVERLAPS:
        expected = []
        for index in scores.argsort(descending=True).tolist():
            if all(iou(own[index].tolist(), own[k].tolist()) <= threshold for k in expected):
                expected.append(index)
        expected = expected[:most]
        if len(expected) == most:
            break
    assert select(own, scores, most).tolist() == expected


def test_windows_cover_the_image_evenly() -> None:
    found = windows()
    assert found.shape == (30, 4)
    assert found[0].tolist() == [0, 0, 1, 1]
    sides = found[:, 2:] - found[:, :2]
    torch.testing.assert_close(sides.prod(1).sum(), torch.tensor(4.0))
    assert len({tuple(box) for box in found.tolist()}) == 30


def test_moving_undoes_what_shifts_measure() -> None:
    start, goal = boxes(50), boxes(50, 1)
    near = (goal[:, 2:] - goal[:, :2]).log() - (start[:, 2:] - start[:, :2]).log()
    reachable = (near.abs() < 2).all(1)
    assert reachable.sum() > 20
    torch.testing.assert_close(
        move(start, shifts(start, goal))[reachable], goal[reachable], atol=1e-5, rtol=1e-5
    )


def truth(count: int = 3) -> Truth:
    rng = torch.Generator().manual_seed(4)
    low = torch.rand(count, 2, generator=rng) * 0.6
    sides = 0.05 + torch.rand(count, 2, generator=rng) * 0.35
    kinds = torch.randint(0, 5, (2, count), generator=rng)
    return Truth(torch.cat([low, low + sides], 1), kinds[0], kinds[1], torch.zeros(3))


@pytest.mark.parametrize("side", [4, 9])
def test_cells_are_told_of_the_smallest_object_whose_centre_is_near(side: int) -> None:
    objects = truth()
    classes, told = cell_targets(objects, side, side)
    for cell, (x, y) in enumerate(cell_centres(side, side).tolist()):
        best, smallest = -1, 2.0
        for one, (x0, y0, x1, y1) in enumerate(objects.boxes.tolist()):
            reach_x = max(0.3 * (x1 - x0), 0.5 / side)
            reach_y = max(0.3 * (y1 - y0), 0.5 / side)
            inside = abs(x - (x0 + x1) / 2) <= reach_x and abs(y - (y0 + y1) / 2) <= reach_y
            if inside and (x1 - x0) * (y1 - y0) < smallest:
                best, smallest = one, (x1 - x0) * (y1 - y0)
        if best < 0:
            assert classes[cell] == -1
        else:
            assert classes[cell] == objects.classes[best]
            assert told[cell].equal(objects.boxes[best])


def test_boxes_are_told_what_they_overlap() -> None:
    objects, rng = truth(), torch.Generator().manual_seed(0)
    some = torch.cat([shaken(objects, 40, 0.15, rng), boxes(20)])
    told = box_targets(objects, some)
    hits = 0
    for row, box in enumerate(some.tolist()):
        overlaps = [iou(box, one) for one in objects.boxes.tolist()]
        best = int(np.argmax(overlaps))
        hit = overlaps[best] >= MATCH
        hits += hit
        assert told.classes[row] == (objects.classes[best] if hit else len(CLASS_NAMES))
        assert told.attributes[row] == (objects.attributes[best] if hit else len(ATTRIBUTE_NAMES))
    assert 5 < hits < 55


def test_truth_is_what_the_recipes_and_boxes_say(data: Path) -> None:
    dataset = read_karpathy(data / DATASET_FILE, data, "scenes")
    instances, recipes = read_instances(data / INSTANCES_FILE), read_recipes(data)
    found = read_truth(dataset, instances, recipes, "train")
    for image, own in zip(dataset.split("train"), found, strict=True):
        things = instances.objects(image.id)
        assert [CLASS_NAMES[k] for k in own.classes] == [thing.category for thing in things]
        colours = [recipes[image.id].objects[t.scene_object or 0].colour for t in things]
        assert [ATTRIBUTE_NAMES[k] for k in own.attributes] == colours
        x, y, width, height = things[0].box
        expected = torch.tensor([x, y, x + width, y + height]) / 64
        torch.testing.assert_close(own.boxes[0], expected)


def test_the_network_finds_as_many_regions_as_it_is_asked_for() -> None:
    torch.manual_seed(0)
    network = RegionNetwork([16, 32, 64, 64, 128, 128], 20, 9)
    (found,) = network(torch.randn(1, 3, 128, 128), 36)
    assert found.features.shape == (36, 128)
    assert found.boxes.shape == (36, 4)
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
    assert (found.features >= 0).all()
    torch.testing.assert_close(found.attributes.sum(1), torch.ones(36))
    assert (found.classes.sum(1) < 1).all()
    scores = found.classes.amax(1)
    assert scores.equal(scores.sort(descending=True).values)


def test_training_measures_what_the_detector_finds(trained: Path) -> None:
    (row,) = csv.DictReader((trained / "metrics.csv").open())
    assert set(row) > {"recall", "class_accuracy", "attribute_accuracy", "recall_of_10"}
    assert all(0 <= float(value) <= 1 for value in row.values())
    assert float(row["recall"]) >= float(row["recall_of_10"])
    assert float(row["recall"]) >= float(row["class_accuracy"])


def test_the_same_inputs_give_the_same_bytes(
    data: Path, trunk: Path, trained: Path, tmp_path: Path
) -> None:
    train_detector(data, trunk, DETECTOR, 64, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_the_maps_are_those_of_the_small_network(trunk: Path, trained: Path) -> None:
    from capscope.features.small import load_small

    small, _ = load_small(trunk)
    network = SmallDetector.trained(trained, 9).network
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(
        torch.nn.functional.max_pool2d(network.body(image), 2), small(image), atol=1e-5, rtol=1e-5
    )


def test_a_store_of_regions_has_boxes_classes_and_scores(extracted: Path, data: Path) -> None:
    store = FeatureStore.open(extracted)
    assert (store.kind, store.dim, store.grid) == ("regions", 12 + 4, (9, 1))
    assert len(store) == 16
    assert store.attributes["class_names"] == list(CLASS_NAMES)
    for image_id in store.ids[:3].tolist():
        found = store.regions(image_id)
        assert found.size == (64, 64)
        assert found.class_ids is not None
        assert found.scores is not None
        assert found.attribute_ids is not None
        assert 0 <= int(found.class_ids.min()) <= int(found.class_ids.max()) < len(CLASS_NAMES)
        assert int(found.attribute_ids.max()) < len(ATTRIBUTE_NAMES)
        assert found.scores.equal(found.scores.sort(descending=True).values)
        torch.testing.assert_close(found.cells[:, -4:], 4 * edges(found.boxes))


def test_the_detector_beside_the_store_sees_an_image_as_the_store_does(
    extracted: Path, data: Path
) -> None:
    extractor = load_extractor(extracted)
    assert isinstance(extractor, SmallDetector)
    store = FeatureStore.open(extracted)
    dataset = read_karpathy(data / DATASET_FILE, data, "scenes")
    some = dataset.images[:3]
    pictures = [np.asarray(Pillow.open(dataset.path(image))) for image in some]
    seen, stored = look(extractor, pictures), store.read([image.id for image in some])
    torch.testing.assert_close(seen.cells, stored.cells, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen.boxes, stored.boxes, atol=1e-5, rtol=1e-4)
    assert (seen.valid is None) == (stored.valid is None)


def test_a_picture_of_any_size_gives_its_own_boxes(extracted: Path) -> None:
    extractor = load_extractor(extracted)
    assert isinstance(extractor, SmallDetector)
    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    (found,) = extractor.detect([picture])
    assert found.size == (160, 90)
    assert len(found.cells) == 9
    assert extractor.detect([]) == []


def test_weights_of_another_detector_are_refused(extracted: Path, tmp_path: Path) -> None:
    for name in ("extractor.json", "extractor.safetensors"):
        (tmp_path / name).write_bytes((extracted / name).read_bytes())
    text = (tmp_path / "extractor.json").read_text()
    (tmp_path / "extractor.json").write_text(text.replace('"size": 12', '"size": 13'))
    with pytest.raises(CapscopeError, match=r"extractor\.safetensors do not fit"):
        load_extractor(tmp_path)
    (tmp_path / "extractor.json").write_text(
        text.replace('"weights_sha256": "', '"weights_sha256": "0')
    )
    with pytest.raises(CapscopeError, match=r"extractor\.safetensors does not belong to"):
        load_extractor(tmp_path)
    (tmp_path / "extractor.json").write_text('{"kind": "regions", "network": "small"}')
    with pytest.raises(CapscopeError, match=r"extractor\.json does not describe"):
        load_extractor(tmp_path)


def test_the_small_detector_needs_its_folder(data: Path, params: Params, tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match="give the folder of --detector"):
        prepare_regions(tmp_path, data, params)


def test_an_image_that_cannot_be_read_leaves_no_store(
    data: Path, trained: Path, params: Params, tmp_path: Path
) -> None:
    dataset = read_karpathy(data / DATASET_FILE, data, "scenes")
    path = dataset.path(dataset.images[5])
    before = {one: one.read_bytes() for one in (path, data / MANIFEST)}
    whole = before[path]
    try:
        path.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
        write_manifest(data, "data", params={})  # it came like that
        with pytest.raises(CapscopeError, match=path.name):
            prepare_regions(tmp_path / "fail", data, params, trained)
        assert not (tmp_path / "fail" / "features.h5").exists()
        skipping = merge(params, {"dataset": {"on_unreadable": "skip"}})
        prepare_regions(tmp_path / "skip", data, skipping, trained)
        assert len(FeatureStore.open(tmp_path / "skip")) == len(dataset.images) - 1
    finally:
        for one, content in before.items():
            one.write_bytes(content)
