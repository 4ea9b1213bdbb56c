"""A checkpoint of each original program becomes a run that is scored and explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from small_features import SEGMENTS, small_features
from test_import_lrp_ic import PLAN, files
from test_import_lrp_ic import WORDS as WORDMAP
from test_import_rnn_family import files as rnn_files
from test_import_rnn_family import original as rnn_original
from torch import Tensor

from capscope.cli import capscope
from capscope.features.classifier import cut
from capscope.features.store import FeatureStore
from capscope.features.vgg import VGG
from capscope.importers import difnet, lrp_ic, spatial
from capscope.importers.difnet_vocabulary import published, write_vocabulary
from capscope.models import build
from capscope.models.checkpoint import load_run

GRID, REGIONS = 16, 4
"""Visual features of an image: of the stack `PLAN` at 16 pixels, and of the small detector."""
Options = list[str]


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(capscope, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("imported")
    params = small_features(made)
    params["explanations"] |= {"images": 2, "batch_size": 2}
    params["benchmarks"]["bootstrap"] = 10
    (made / "params.yaml").write_text(yaml.safe_dump(params))
    return made


def _gridtd(out: Path, folder: Path, *, grid: bool) -> Options:
    size = 7 if grid else FeatureStore.open(folder / "regions").dim
    config = {"vocabulary_size": len(WORDMAP), "feature_size": size, "embedding": 4, "hidden": 6}
    config |= {"attention": GRID if grid else REGIONS, "parity": True}
    if not grid:
        config["global_from"] = "projected"
    state: dict[str, Tensor] = lrp_ic.to_original(
        "gridtd", build("gridtd", **config).state_dict(), grid=grid
    )
    if grid:
        stack = VGG(PLAN).state_dict()
        state |= {f"img_encoder.encoder.{key}": tensor for key, tensor in stack.items()}
    given = files(out, {key: tensor.contiguous() for key, tensor in state.items()})
    return [f"--{name}={path}" for name, path in given.items()]


def lrp_image_captioning(out: Path, folder: Path) -> Options:
    chosen = ["--captioner=gridtd", "--features=grid", "--image-size=16"]
    return ["lrp_ic", *_gridtd(out, folder, grid=True), *chosen]


def latent_space(out: Path, folder: Path) -> Options:
    return ["latent", *_gridtd(out, folder, grid=False), f"--store={folder / 'regions'}"]


def recurrent(out: Path, folder: Path) -> Options:
    network = {key: _new(key, value) for key, value in cut("regnet_x_400mf").state_dict().items()}
    state = rnn_original() | {f"model.cnn.{key}": value for key, value in network.items()}
    given = rnn_files(out, state)
    options = [f"--{name}={path}" for name, path in given.items()]
    return ["rnn_family", *options, "--captioner=attention_lstm"]


def _new(name: str, weight: Tensor) -> Tensor:
    """Return a weight as before training: what a random network sees stays finite."""
    if weight.dim() > 1:
        return torch.randn(weight.shape) / weight[0].numel() ** 0.5
    ones = name.endswith((".weight", "running_var"))
    return torch.full_like(weight, 1 if ones else 0)


def spatial_transformer(out: Path, folder: Path) -> Options:
    store = FeatureStore.open(folder / "regions")
    config: dict[str, Any] = {"hidden": 8, "heads": 2, "feed_forward": 7, "layers": 1, "grid": 3}
    captioner = build("spatial", vocabulary_size=5, feature_size=store.dim, **config)
    torch.save(spatial.to_original("spatial", captioner.state_dict()), out / "model.pt")
    words = {"ix_to_word": {"1": "a", "2": "cat", "3": "dog", "4": "UNK"}, "images": []}
    (out / "words.json").write_text(json.dumps(words))
    options = [f"--checkpoint={out / 'model.pt'}", f"--words={out / 'words.json'}", "--heads=2"]
    return ["spatial", *options, f"--store={folder / 'regions'}"]


def dual_flow(out: Path, folder: Path) -> Options:
    store = FeatureStore.open(folder / "grid")
    words = published(["a", "cat", "dog"])
    captioner = build(
        "difnet",
        vocabulary_size=len(words),
        feature_size=store.dim,
        segment_size=len(SEGMENTS),
        **{"hidden": 8, "heads": 2, "feed_forward": 7, "layers": 3, "parity": True, "padding": 1},
    )
    state = difnet.to_original(captioner, "difnet_lrp")
    torch.save({"state_dict": state, "epoch": 3}, out / "DIFNet_lrp.pth")
    write_vocabulary(out / "vocab.pkl", words)
    options = [f"--checkpoint={out / 'DIFNet_lrp.pth'}", f"--vocabulary={out / 'vocab.pkl'}"]
    return ["difnet", *options, "--heads=2", f"--store={folder / 'grid'}"]


SYSTEMS: dict[Callable[[Path, Path], Options], str | None] = {
    lrp_image_captioning: None,
    latent_space: "regions",
    recurrent: None,
    spatial_transformer: "regions",
    dual_flow: "grid",
}
"""What writes a checkpoint, and the features it reads: of a store, or of its own network."""


@pytest.mark.slow  # each reading of a foreign file starts a process
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.__name__)
def test_a_checkpoint_is_imported_scored_and_explained(
    system: Callable[[Path, Path], Options], folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    run, data = tmp_path / "run", folder / "data"
    invoke("import", *system(tmp_path, folder), "--out", run)
    kind = SYSTEMS[system]
    features = tmp_path / "features" if kind is None else folder / kind
    shared = ["--params", folder / "params.yaml", "--data", data]
    if kind is None:
        invoke("features", *shared, "--run", run, "--out", features)
    shared += ["--features", features, "--run", run]
    captions = run / "decoded" / "test.json"
    invoke("decode", *shared, "--split", "test", "--out", captions)
    found = json.loads(captions.read_text())
    assert len(found) == 3
    scored = ["--params", folder / "params.yaml", "--data", data, "--run", run]
    plain = ["--tokenizer", "python", "--no-meteor", "--format", "csv"]
    table = invoke("evaluate", *scored, *plain, "--out", run / "scores")
    assert "CIDEr" in table
    if any(one["caption"] for one in found):
        explained = ["--split", "test", "--explainer", "lrp", "--out", run / "relevance"]
        invoke("relevance", *shared, *explained)
        assert (run / "relevance" / "lrp" / "test" / "relevance.h5").exists()
    said = invoke("caption", folder / "images" / "0.png", "--run", run)
    assert said.startswith(str(folder / "images" / "0.png"))
    assert load_run(run).info["extractor"] is not None
