"""The ground-truth benchmark: perfect maps score 1, uniform ones chance; and a slow twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from capscope.benchmarks.depiction import box_depictions, scene_depictions
from capscope.benchmarks.ground_truth import measure_ground_truth
from capscope.benchmarks.measurement import Measurement
from capscope.data.annotations import Dataset, read_karpathy
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import Vocabulary, build_vocabulary
from capscope.explain.explanation import Explanation
from capscope.explain.raster import coverage
from capscope.explain.store import Captions, RelevanceStore, write_relevance
from capscope.explain.words import scene_words
from capscope.files import write_json

SIZE = 64
SETTINGS = {"seed": 3, "size": SIZE, "train": 1, "val": 1, "test": 12, "shift": 0, "bias": 0.8}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def dataset(scenes: Path) -> Dataset:
    return read_karpathy(scenes / "dataset.json", scenes, "scenes")


@pytest.fixture(scope="module")
def vocabulary(dataset: Dataset) -> Vocabulary:
    return build_vocabulary([t for image in dataset.images for t in image.tokens], 1)


def store_of(
    folder: Path, dataset: Dataset, vocabulary: Vocabulary, maps: dict[int, torch.Tensor]
) -> RelevanceStore:
    """Store pixel maps (T, S, S) for the first reference of each test image."""
    images = dataset.split("test")
    captions = Captions.of(
        [image.id for image in images], [vocabulary.encode(image.tokens[0]) for image in images]
    )
    batches = []
    for row, image in enumerate(images):
        pixels = maps[image.id].float().unsqueeze(0)
        grid = coverage(pixels[0], 8, 8).flatten(1).unsqueeze(0)
        batches.append((np.array([row]), Explanation(grid, pixels=pixels)))
    write_relevance(
        folder,
        captions,
        batches,
        map_size=SIZE,
        attributes={"explainer": "made", "split": "test", "grid": (8, 8), "image_size": SIZE},
        params={},
        inputs={},
    )
    return RelevanceStore(folder)


def measured(
    store: RelevanceStore, scenes: Path, dataset: Dataset, vocabulary: Vocabulary
) -> dict[tuple[str, str, str, str], Measurement]:
    rows = measure_ground_truth(
        [store], scenes, dataset, vocabulary, sigma=0.0, resamples=50, seed=1
    )
    return {(row.explainer, row.resolution, row.word_kind, row.measure): row for row in rows}


def true_masks(scenes: Path, dataset: Dataset) -> dict[int, torch.Tensor]:
    """Masks (T, S, S) of what each word of each first reference is about, by a loop."""
    found = {}
    images = dataset.split("test")
    depictions = scene_depictions(scenes, dataset, [image.id for image in images])
    for image in images:
        depiction = depictions[image.id]
        masks = torch.zeros(len(image.tokens[0]), SIZE, SIZE, dtype=torch.bool)
        for word in scene_words(image.tokens[0]):
            for mask, thing in zip(depiction.masks, depiction.objects, strict=True):
                if thing.label in word.about:
                    masks[word.position] |= mask
            if not word.about:
                masks[word.position] = ~depiction.masks.any(0)
        found[image.id] = masks
    return found


def test_maps_that_are_the_masks_score_one(
    tmp_path: Path, scenes: Path, dataset: Dataset, vocabulary: Vocabulary
) -> None:
    store = store_of(tmp_path, dataset, vocabulary, true_masks(scenes, dataset))
    rows = measured(store, scenes, dataset, vocabulary)
    kinds = {kind for _, _, kind, _ in rows}
    assert {"noun", "colour"} <= kinds
    for kind in kinds:
        assert rows["made", "pixels", kind, "hit"].value == 1
        assert rows["made", "pixels", kind, "mass"].value == pytest.approx(1)
    for kind in ("noun", "colour"):
        assert rows["made", "pixels", kind, "choice"].value == 1
        assert rows["made", "grid", kind, "choice"].value > 0.9
        assert rows["made", "grid", kind, "hit"].value > 0.9


def test_pixel_maps_pooled_to_the_grid_score_as_the_grid_that_they_add_up_to(
    tmp_path: Path, scenes: Path, dataset: Dataset, vocabulary: Vocabulary
) -> None:
    noise = torch.Generator().manual_seed(4)
    maps = {
        image_id: torch.rand(masks.shape, generator=noise) * (masks + 0.2)
        for image_id, masks in true_masks(scenes, dataset).items()
    }
    rows = measured(store_of(tmp_path, dataset, vocabulary, maps), scenes, dataset, vocabulary)
    pooled = {key: row for key, row in rows.items() if key[:2] == ("made", "pooled")}
    assert pooled
    for (_, _, kind, measure), row in pooled.items():
        assert row.value == pytest.approx(rows["made", "grid", kind, measure].value, abs=0.01)


def test_uniform_maps_score_the_area_of_the_target(
    tmp_path: Path, scenes: Path, dataset: Dataset, vocabulary: Vocabulary
) -> None:
    masks = true_masks(scenes, dataset)
    uniform = {image_id: torch.ones_like(mask) for image_id, mask in masks.items()}
    rows = measured(store_of(tmp_path, dataset, vocabulary, uniform), scenes, dataset, vocabulary)
    areas = [
        float(masks[image.id][word.position].float().mean())
        for image in dataset.split("test")
        for word in scene_words(image.tokens[0])
        if word.kind == "noun"
    ]
    for measure in ("hit", "mass"):
        row = rows["made", "pixels", "noun", measure]
        assert row.value == pytest.approx(np.mean(areas), rel=1e-3)
        assert row.n == len(areas)
        assert row.low <= row.value <= row.high


def test_maps_on_another_object_never_hit_and_never_choose(
    tmp_path: Path, scenes: Path, dataset: Dataset, vocabulary: Vocabulary
) -> None:
    masks = true_masks(scenes, dataset)
    wrong = {image_id: ~mask for image_id, mask in masks.items()}
    rows = measured(store_of(tmp_path, dataset, vocabulary, wrong), scenes, dataset, vocabulary)
    for measure in ("hit", "mass", "choice"):
        assert rows["made", "pixels", "noun", measure].value == 0


def test_noise_and_centre_come_along_as_controls(
    tmp_path: Path, scenes: Path, dataset: Dataset, vocabulary: Vocabulary
) -> None:
    store = store_of(tmp_path, dataset, vocabulary, true_masks(scenes, dataset))
    rows = measured(store, scenes, dataset, vocabulary)
    for control in ("random", "centre"):
        assert rows[control, "pixels", "noun", "mass"].value < 0.35
        assert rows[control, "grid", "noun", "hit"].value < 0.6


def test_words_that_are_false_of_the_image_are_left_out(scenes: Path, dataset: Dataset) -> None:
    image = dataset.split("test")[0]
    depiction = scene_depictions(scenes, dataset, [image.id])[image.id]
    thing = depiction.objects[0]
    other = "red" if thing.colour != "red" else "blue"
    colour, noun = scene_words(["a", other, thing.label])[::1]
    assert not depiction.meant(colour).any()
    assert depiction.meant(noun).tolist() == [one.label == thing.label for one in depiction.objects]


def test_boxes_become_masks_in_the_square_frame(tmp_path: Path) -> None:
    instances = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [50, 25, 100, 50]}],
    }
    write_json(tmp_path / "instances.json", instances)
    depiction = box_depictions(tmp_path / "instances.json", [5, 6], 16)[5]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:12, 4:12] = True
    assert depiction.masks[0].equal(expected)
    assert depiction.objects[0].label == "dog"
