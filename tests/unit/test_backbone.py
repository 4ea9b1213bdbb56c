"""The small grid network: its shape, its training on scenes, and going on after a kill."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace

from capscope.data.annotations import DATASET_FILE, read_karpathy
from capscope.data.scenes import read_recipes, visible_mask, write_scenes
from capscope.errors import CapscopeError
from capscope.features import backbone
from capscope.features.grid import GridExtractor
from capscope.features.small import SmallNetwork, block_ends, load_small
from capscope.features.supervision import CELL_LABELS, IMAGE_LABELS, read_examples

SCENES = {"seed": 5, "size": 64, "train": 12, "val": 4, "test": 1, "shift": 0, "bias": 0.85}
SETTINGS = {"channels": [4, 8, 8], "epochs": 3, "batch_size": 5, "learning_rate": 0.01, "seed": 2}
FILES = ("model.safetensors", "model.json", "metrics.csv", "manifest.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    write_scenes(out, SCENES)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    backbone.train_backbone(data, SETTINGS, out)
    return out


def test_the_default_network_is_plain_and_makes_an_8_by_8_grid() -> None:
    network = SmallNetwork([16, 32, 64, 64, 128, 128])
    assert network(torch.zeros(1, 3, 128, 128)).shape == (1, 128, 8, 8)
    assert {type(layer) for layer in network} == {nn.Conv2d, nn.ReLU, nn.MaxPool2d}
    operations = {node.op for node in symbolic_trace(network).graph.nodes}
    assert operations == {"placeholder", "call_module", "output"}


def test_a_block_ends_where_the_number_of_channels_changes() -> None:
    assert block_ends([16, 32, 64, 64, 128, 128]) == [True, True, False, True, False, True]


def test_folding_keeps_the_function_as_long_as_scales_are_positive() -> None:
    torch.manual_seed(0)
    model = backbone.TrainedNetwork([4, 8, 8])
    for _, norm in model.layers():
        nn.init.uniform_(norm.weight, 0.1, 2)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    model.eval()
    images = torch.randn(2, 3, 32, 32)
    maps = model.folded([4, 8, 8])(images)
    torch.testing.assert_close(model.classes(maps), model(images)[0], atol=1e-5, rtol=1e-4)


def test_cells_are_labelled_with_what_their_pixels_show(data: Path) -> None:
    dataset = read_karpathy(data / DATASET_FILE, data, "scenes")
    recipes = read_recipes(data)
    examples = read_examples(dataset, recipes, "train", 2)
    assert examples.images.shape == (12, 3, 64, 64)
    for number, image in enumerate(dataset.split("train")):
        recipe = recipes[image.id]
        mask = visible_mask(recipe)
        for row, column in ((3, 4), (9, 9), (15, 0)):
            cell = mask[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
            for labels, names, field in zip(
                (examples.classes, examples.colours),
                CELL_LABELS,
                ("name", "colour"),
                strict=True,
            ):
                expected = np.zeros(len(names))
                for value in cell.ravel():
                    shown = getattr(recipe.objects[value - 1], field) if value else "background"
                    expected[names.index(shown)] += 1 / 16
                np.testing.assert_allclose(labels[number, :, row, column], expected, atol=1e-6)
        names = np.array(IMAGE_LABELS)[examples.whole[number].numpy() > 0]
        assert set(names) == {recipe.place, recipe.time, recipe.weather} - {None}


def test_training_writes_a_network_that_the_grid_extractor_takes(trained: Path) -> None:
    network, info = load_small(trained)
    extractor = GridExtractor("small", network, 64, **info)
    assert extractor.grid == (16, 16)
    assert not network.training
    rows = (trained / "metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,class_f1,colour_f1,place_accuracy"
    assert len(rows) == 1 + SETTINGS["epochs"]  # type: ignore[operator]
    assert float(rows[-1].split(",")[1]) < float(rows[1].split(",")[1])
    assert "mask" in json.loads((trained / "model.json").read_text())["supervision"]


def test_an_interrupted_training_ends_with_the_same_bytes(
    data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    evaluate = backbone.evaluate

    def stop_in_the_second_epoch(*arguments: Any) -> dict[str, float]:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(backbone, "evaluate", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        backbone.train_backbone(data, SETTINGS, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    monkeypatch.undo()
    backbone.train_backbone(data, SETTINGS, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


def test_other_settings_start_anew(data: Path, trained: Path, tmp_path: Path) -> None:
    backbone.train_backbone(data, {**SETTINGS, "epochs": 1}, tmp_path)
    backbone.train_backbone(data, SETTINGS, tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (trained / "metrics.csv").read_bytes()


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match="not a finished backbone"):
        load_small(tmp_path)
