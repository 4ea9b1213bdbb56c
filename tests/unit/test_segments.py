"""Segments: pooled labels against a slow twin, and each place that labels come from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from published_features import data_folder, import_params
from torch import nn

from capscope.data.annotations import DATASET_FILE, read_karpathy
from capscope.data.scenes import read_recipes, visible_mask, write_scenes
from capscope.errors import CapscopeError
from capscope.features.backbone import train_backbone
from capscope.features.extract import prepare_features
from capscope.features.extractor import load_extractor, look
from capscope.features.grid import GridExtractor, build_extractor
from capscope.features.importing.labels import SCENE_NAMES, ModelLabels
from capscope.features.importing.write import import_features
from capscope.features.panoptic import CATEGORIES, CHANNELS, VOC, VOC_CHANNELS
from capscope.features.segments import CellClassifier, pooled_labels
from capscope.features.store import FeatureStore, create_region_store, create_store
from capscope.features.supervision import CELL_LABELS
from capscope.files import write_manifest
from capscope.params import Params

IDS = {7: "7.jpg", 40: "40.jpg"}


def slow_pool(labels: torch.Tensor, classes: int, grid: tuple[int, int]) -> torch.Tensor:
    height, width = labels.shape
    found = torch.zeros(*grid, classes, dtype=torch.float64)
    for i in range(grid[0]):
        for j in range(grid[1]):
            top, bottom = i * height // grid[0], -(-(i + 1) * height // grid[0])
            left, right = j * width // grid[1], -(-(j + 1) * width // grid[1])
            for label in labels[top:bottom, left:right].flatten().tolist():
                if label >= 0:
                    found[i, j, label] += 1 / ((bottom - top) * (right - left))
    return found.flatten(0, 1).float()


@pytest.mark.parametrize(
    ("size", "grid"), [((14, 21), (7, 7)), ((10, 9), (7, 4)), ((5, 6), (7, 7))]
)
def test_labels_are_pooled_as_one_hot_maps(size: tuple[int, int], grid: tuple[int, int]) -> None:
    labels = torch.randint(-1, 6, size, generator=torch.Generator().manual_seed(0))
    found = pooled_labels(labels, 6, grid)
    torch.testing.assert_close(found, slow_pool(labels, 6, grid))
    assert pooled_labels(torch.full(size, -1), 6, grid).eq(0).all()


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(CapscopeError, match="up to 6: 6 classes"):
        pooled_labels(torch.full((4, 4), 6), 6, (2, 2))


def test_the_panoptic_classes_are_80_things_and_53_kinds_of_stuff() -> None:
    assert len(CATEGORIES) == 133
    assert list(CATEGORIES) == sorted(CATEGORIES)
    assert sum(number <= 90 for number in CATEGORIES) == 80
    assert sorted(CHANNELS.values()) == list(range(133))
    assert len(set(CATEGORIES.values())) == 133


def test_torchvisions_segmentation_classes_are_named_things_of_coco() -> None:
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

    theirs = LRASPP_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]
    other = {
        **{"__background__": "background", "aeroplane": "airplane", "sofa": "couch"},
        **{"diningtable": "dining table", "motorbike": "motorcycle", "tvmonitor": "tv"},
        "pottedplant": "potted plant",
    }
    assert [other.get(name, name) for name in theirs] == list(VOC)
    names = list(CATEGORIES.values())
    assert [names.index(name) if name in names else -1 for name in VOC] == VOC_CHANNELS


@pytest.mark.parametrize("parts", [1, 3])
def test_a_trained_head_tells_the_classes_of_cells(tmp_path: Path, parts: int) -> None:
    torch.manual_seed(0)
    head, maps = nn.Conv2d(5, 4, 1), torch.randn(parts, 5, 2, 3)
    made = CellClassifier.of(head, ["none", "cat", "dog", "fish"])
    expected = head(maps).softmax(1).flatten(2).transpose(1, 2).detach()
    cells = maps.flatten(2).transpose(1, 2)
    torch.testing.assert_close(made(cells), expected)
    made.save(tmp_path)
    again = CellClassifier.load(tmp_path)
    assert again.names == ("none", "cat", "dog", "fish")
    torch.testing.assert_close(again(cells), expected)


def test_the_small_network_predicts_the_segments_of_its_cells(tmp_path: Path) -> None:
    settings = {"seed": 3, "size": 64, "train": 4, "val": 2, "test": 1, "shift": 0, "bias": 0.8}
    data, trunk, out = (tmp_path / name for name in ("data", "backbone", "grid"))
    write_scenes(data, settings)
    train_backbone(
        data,
        {"channels": [4, 8], "epochs": 1, "batch_size": 3, "learning_rate": 0.01, "seed": 2},
        trunk,
    )
    grid = {"image_size": 64, "dtype": "float32", "segments": "predicted"}
    prepare_features(out, data, import_params(features={"grid": grid}), trunk)
    store, extractor = FeatureStore.open(out), load_extractor(out)
    assert isinstance(extractor, GridExtractor)
    assert extractor.segmenter is not None
    assert extractor.segmenter.names == CELL_LABELS[0]
    read = store.read([1, 5])
    assert read.segments is not None
    assert read.segments.shape == (2, 16 * 16, len(CELL_LABELS[0]))
    torch.testing.assert_close(read.segments.sum(-1), torch.ones(2, 16 * 16))
    images = read_karpathy(data / DATASET_FILE, data, "toy")
    pictures = [np.asarray(Pillow.open(images.path(images.by_id(n)))) for n in (1, 5)]
    seen = look(extractor, pictures)
    torch.testing.assert_close(seen.segments, read.segments, atol=1e-5, rtol=1e-4)
    maps = extractor.to_maps(read.cells / extractor.scale)
    head = CellClassifier.load(trunk).linear
    logits = torch.nn.functional.conv2d(maps, head.weight[:, :, None, None], head.bias)
    expected = logits.softmax(1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(read.segments, expected, atol=1e-5, rtol=1e-4)
    store.check_same_kind({**store.attributes, "segments": None}, "a run without segments")
    with pytest.raises(CapscopeError, match="segments = "):
        store.check_same_kind({**store.attributes, "segments": "others"}, "the run")


def test_only_the_small_network_predicts_segments() -> None:
    settings = {
        **{"network": "squeezenet1_0", "weights": "a.pth", "image_size": 64, "scale": 1},
        "segments": "predicted",
    }
    with pytest.raises(CapscopeError, match="only the small network predicts segments"):
        build_extractor(settings)


def params() -> Params:
    return import_params()


def grid_store(folder: Path, ids: list[int], side: int) -> Path:
    attributes = {"grid": [side, side], "network": "toy"}
    with create_store(
        folder, ids, cells=side**2, dim=3, dtype="float32", attributes=attributes
    ) as writer:
        writer.append(torch.arange(len(ids) * side**2 * 3.0).view(len(ids), side**2, 3))
    write_manifest(folder, "features", params={})
    return folder


def added(tmp_path: Path, form: str, path: Path, side: int = 7) -> FeatureStore:
    """Add segments to a grid store of the data set in ``data``."""
    data = tmp_path / "data"
    ids = [image.id for image in read_karpathy(data / DATASET_FILE, data, "toy").images]
    kept = grid_store(tmp_path / "grid", ids, side)
    import_features([("store", kept), (form, path)], data, params(), tmp_path / "both")
    store = FeatureStore.open(tmp_path / "both")
    torch.testing.assert_close(store.read(ids).cells, FeatureStore.open(kept).read(ids).cells)
    assert store.attributes["network"] == "toy"
    assert store.attributes["segments"] == form
    return store


def panoptic(folder: Path) -> dict[int, torch.Tensor]:
    """Write annotations in COCO's layout; return the channels of the pixels of each image."""
    rng = np.random.default_rng(0)
    categories = list(CATEGORIES)
    folder.mkdir()
    annotations, expected = [], {}
    for image_id in IDS:
        ids = rng.integers(1, 1 << 24, 5)
        ids[0] = 0
        own = rng.choice(categories, 5)
        shown = rng.integers(0, 5, (20, 30))
        colours = ids[shown]
        pixels = np.stack([colours % 256, colours // 256 % 256, colours // 65536], -1)
        Pillow.fromarray(pixels.astype(np.uint8)).save(folder / f"{image_id:012d}.png")
        segments = [
            {"id": int(a), "category_id": int(b)} for a, b in zip(ids[1:], own[1:], strict=True)
        ]
        annotations.append(
            {
                "image_id": image_id,
                "file_name": f"{image_id:012d}.png",
                "segments_info": segments,
            }
        )
        channels = np.array([-1, *(categories.index(c) for c in own[1:])])
        expected[image_id] = torch.from_numpy(channels[shown])
    content = {"annotations": annotations, "categories": [], "images": []}
    folder.with_suffix(".json").write_text(json.dumps(content))
    return expected


def test_panoptic_annotations_become_segments(tmp_path: Path) -> None:
    data_folder(tmp_path / "data", IDS)
    expected = panoptic(tmp_path / "panoptic_val")
    found = added(tmp_path, "segments_panoptic", tmp_path / "panoptic_val.json").read([40, 7])
    assert found.segments is not None
    assert found.segments.shape == (2, 49, 133)
    for row, image_id in enumerate((40, 7)):
        pooled = slow_pool(expected[image_id], 133, (7, 7))
        torch.testing.assert_close(found.segments[row], pooled)


def test_a_segment_without_category_is_named(tmp_path: Path) -> None:
    data_folder(tmp_path / "data", IDS)
    panoptic(tmp_path / "panoptic_val")
    path = tmp_path / "panoptic_val.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["segments_info"][0]["category_id"] = 999
    path.write_text(json.dumps(content))
    with pytest.raises(CapscopeError, match=r"image 40 .*: segment \d+ has no known category"):
        added(tmp_path, "segments_panoptic", path)
    (tmp_path / "panoptic_val" / f"{7:012d}.png").unlink()
    with pytest.raises(CapscopeError, match=r"image 7 .*is missing"):
        added(tmp_path, "segments_panoptic", path)
    path.write_text("{}")
    with pytest.raises(CapscopeError, match="holds no panoptic annotations"):
        added(tmp_path, "segments_panoptic", path)


def instances(path: Path, *objects: dict[str, object]) -> Path:
    images = [{"id": image_id, "width": 28, "height": 14} for image_id in IDS]
    annotations = [{"image_id": 7, **one} for one in objects]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_boxes_and_polygons_become_segments_small_objects_above_large_ones(tmp_path: Path) -> None:
    data_folder(tmp_path / "data", IDS)
    cat = {"category_id": 17, "bbox": [8, 4, 4, 4], "area": 16}
    bed = {"category_id": 65, "bbox": [0, 0, 16, 14], "area": 224}
    half = [20, 0, 27, 0, 27, 13, 20, 13]
    dog = {"category_id": 18, "bbox": [0, 0, 28, 14], "area": 100, "segmentation": [half]}
    path = instances(tmp_path / "boxes.json", cat, dog, bed)
    read = added(tmp_path, "segments_instances", path).read([7, 40]).segments
    assert read is not None
    expected = torch.full((14, 28), -1)
    expected[:, :16] = CHANNELS[65]
    expected[4:8, 8:12] = CHANNELS[17]
    expected[:, 20:] = CHANNELS[18]
    torch.testing.assert_close(read[0], slow_pool(expected, 133, (7, 7)))
    assert not read[1].any()


def test_instances_that_do_not_fit_are_named(tmp_path: Path) -> None:
    data_folder(tmp_path / "data", IDS)
    path = instances(tmp_path / "boxes.json", {"category_id": 999, "bbox": [0, 0, 5, 5]})
    with pytest.raises(CapscopeError, match=r"image 7: category 999 is none of COCO's 133"):
        added(tmp_path, "segments_instances", path)
    path.write_text('{"annotations": []}')
    with pytest.raises(CapscopeError, match="does not hold COCO's instances"):
        added(tmp_path, "segments_instances", path)


def test_the_masks_of_scenes_become_segments(tmp_path: Path) -> None:
    settings = {"seed": 3, "size": 64, "train": 2, "val": 1, "test": 1, "shift": 0, "bias": 0.8}
    data = tmp_path / "data"
    write_scenes(data, settings)
    store = added(tmp_path, "segments_masks", data, side=8)
    for image_id, recipe in read_recipes(data).items():
        mask = torch.from_numpy(visible_mask(recipe).astype(int))
        names = [recipe.place, *(thing.name for thing in recipe.objects)]
        labels = torch.tensor([SCENE_NAMES.index(name) for name in names])[mask]
        (segments,) = store.read([image_id]).segments  # type: ignore[misc]
        torch.testing.assert_close(segments, slow_pool(labels, len(SCENE_NAMES), (8, 8)))
        torch.testing.assert_close(segments.sum(1), torch.ones(64))


@pytest.mark.slow
def test_a_model_of_torchvision_makes_segments(tmp_path: Path) -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21).eval()
    path = tmp_path / "lraspp_mobilenet_v3_large-0.pth"
    torch.save(model.state_dict(), path)
    data = data_folder(tmp_path / "data", {7: "7.png"})
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Pillow.fromarray(picture).save(data / "7.png")
    dataset = read_karpathy(data / DATASET_FILE, data, "toy")
    source = ModelLabels(path, dataset)
    (entry,) = source.scan()
    labels = source.labels(entry, dataset.images[0])
    assert labels.shape == (520, 520)
    assert set(torch.unique(labels).tolist()) <= set(VOC_CHANNELS)
    segments = source.read(entry, dataset.images[0])
    torch.testing.assert_close(segments, slow_pool(labels, 133, (7, 7)), atol=1e-5, rtol=1e-5)
    path.rename(tmp_path / "unknown.pth")
    with pytest.raises(CapscopeError, match="begins with no segmentation model"):
        ModelLabels(tmp_path / "unknown.pth", dataset)


def test_segments_are_added_to_regions_too(tmp_path: Path) -> None:
    from capscope.features.regions import Regions

    data_folder(tmp_path / "data", IDS)
    expected = panoptic(tmp_path / "panoptic_val")
    image = Regions(
        torch.rand(3, 4), torch.tensor([[0.0, 0, 1, 1]] * 3), (30, 20), scores=torch.rand(3)
    )
    with create_region_store(
        tmp_path / "kept",
        list(IDS),
        regions=36,
        dim=4,
        dtype="float32",
        attributes={"network": "toy", "class_names": ["a"]},
        details=["scores"],
    ) as writer:
        writer.append([image, image])
    write_manifest(tmp_path / "kept", "features", params={})
    sources = [
        ("store", tmp_path / "kept"),
        ("segments_panoptic", tmp_path / "panoptic_val.json"),
    ]
    import_features(sources, tmp_path / "data", params(), tmp_path / "both")
    store = FeatureStore.open(tmp_path / "both")
    torch.testing.assert_close(store.regions(40).cells, image.cells)
    assert store.attributes["class_names"] == ["a"]
    (segments,) = store.read([40]).segments  # type: ignore[misc]
    torch.testing.assert_close(segments, slow_pool(expected[40], 133, (7, 7)))
    whole = (tmp_path / "both" / "features.h5").read_bytes()
    import_features(sources, tmp_path / "data", params(), tmp_path / "kept")  # into itself
    assert FeatureStore.open(tmp_path / "kept").path.read_bytes() == whole
