"""From scenes through a coco.pt of them to captions, by the commands and the published recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torchvision.models import regnet_x_400mf

from capscope.cli import capscope
from capscope.data.annotations import DATASET_FILE, Dataset, read_karpathy
from capscope.data.coco_pt import UNKNOWN
from capscope.data.coco_pt_build import PT_FILE

ROOT = Path(__file__).parents[2]
SIZES = {"train": 10, "val": 4, "size": 112, "words": 15, "vocabulary": 40}
Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*words: Any) -> None:
        found = CliRunner().invoke(capscope, [str(word) for word in words])
        assert found.exit_code == 0, f"{found.output}\n{found.exception}"

    return call


@pytest.fixture
def exported(run: Run, tmp_path: Path) -> Path:
    """Draw scenes and return the folder of a coco.pt made of them."""
    few = {"size": 64, "train": 12, "val": 5, "test": 1, "shift": 1}
    (tmp_path / "few.json").write_text(json.dumps({"dataset": {"scenes": few}}))
    params = ["--params", ROOT / "params.yaml", "--params", tmp_path / "few.json"]
    scenes, out = tmp_path / "scenes", tmp_path / "coco_pt"
    run("data", *params, "--out", scenes)
    sizes = [word for name, value in SIZES.items() for word in (f"--{name}", value)]
    run("export", "coco_pt", *params, "--data", scenes, "--out", out, *sizes)
    return out


def changed(tmp_path: Path, file: Path) -> list[Any]:
    """Return the parameters of config/coco_pt.yaml, with a file and a training of seconds."""
    torch.manual_seed(0)
    torch.save(regnet_x_400mf(weights=None).state_dict(), tmp_path / "regnet.pth")
    short = {"epochs": 1, "batch_size": 5, "validation_images": 2}
    model = {"embedding": 8, "hidden": 12}
    overlay = {
        "dataset": {"coco_pt": {"file": str(file)}, "downloads": []},
        "features": {"grid": {"weights": str(tmp_path / "regnet.pth")}},
        "systems": {
            name: {"xe": short, "model": model} for name in ("rnn", "lstm", "attention_lstm")
        },
    }
    (tmp_path / "short.json").write_text(json.dumps(overlay))
    files = [ROOT / "params.yaml", ROOT / "config" / "coco_pt.yaml", tmp_path / "short.json"]
    return [word for file in files for word in ("--params", file)]


@pytest.mark.slow
def test_scenes_become_a_coco_pt_on_which_the_published_recipe_trains(
    exported: Path, run: Run, tmp_path: Path
) -> None:
    system, params = "attention_lstm", changed(tmp_path, exported / PT_FILE)
    folder = {name: tmp_path / name for name in ("data", "vocabulary", "features", "run", "own")}
    data = ["--data", folder["data"]]
    run("data", *params, "--out", folder["data"])
    run("vocabulary", *params, "--system", system, *data, "--out", folder["vocabulary"])
    run("features", *params, "--kind", "grid", *data, "--out", folder["features"])
    inputs = ["--vocabulary", folder["vocabulary"], "--features", folder["features"]]
    which = ["--system", system, "--stage", "xe", "--seed", 1]
    run("train", *params, *which, *data, *inputs, "--out", folder["run"])
    own = ["--run", folder["run"], "--out", folder["own"]]
    run("features", *params, "--kind", "grid", *data, *own)
    decoded = ["--features", folder["own"], "--split", "val", "--out", tmp_path / "val.json"]
    run("decode", *params, "--run", folder["run"], *data, *decoded)

    spoken = json.loads((tmp_path / "val.json").read_text())
    assert len(spoken) == SIZES["val"]
    known = set(json.loads((folder["data"] / "vocabulary.json").read_text())["words"])
    assert len(known) == SIZES["vocabulary"] + 4
    assert {word for one in spoken for word in one["caption"].split()} <= known
    told = [image.tokens for image in prepared(tmp_path / "scenes").split("train")]
    for image in prepared(folder["data"]).split("train"):
        assert (image.width, image.height) == (SIZES["size"],) * 2
        (words,) = image.tokens
        assert len(words) <= SIZES["words"]
        assert any(follows(words, whole) for references in told for whole in references)


def prepared(folder: Path) -> Dataset:
    return read_karpathy(folder / DATASET_FILE, folder, folder.name)


def follows(words: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Say whether a caption is the beginning of another, but for unknown words."""
    pairs = zip(words, whole, strict=False)
    return len(words) <= len(whole) and all(own in (UNKNOWN, word) for own, word in pairs)
