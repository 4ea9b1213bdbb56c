"""Importing and exporting checkpoints of LRP image captioning: what fits, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from capscope.decoding.captions import caption_images
from capscope.errors import CapscopeError
from capscope.explain.photograph import Photographer
from capscope.features.grid import GridExtractor, build_extractor, weights_sha256
from capscope.features.regions import Regions
from capscope.features.store import FeatureStore, create_region_store, create_store
from capscope.features.vgg import VGG, VGG16, plan_of
from capscope.features.visual import Features
from capscope.files import write_manifest
from capscope.importers.lrp_ic import LAYOUTS, to_original
from capscope.importers.lrp_ic_runs import export_run, import_run, read_wordmap
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import load_run
from capscope.tensors import write_tensors

PLAN: list[int | str] = [4, "M", 6, "M", 7]
SIZE = 16  # pixels; 4 x 4 cells
WORDS = {"<pad>": 0, "a": 1, "dog": 2, "runs": 3, "<unk>": 4, "<start>": 5, "<end>": 6}
CONFIG = {"vocabulary_size": len(WORDS), "feature_size": 7, "embedding": 4, "hidden": 6}
OWN = {
    "gridtd": {"attention": 16, "parity": True},
    "adaptive": {"attention": 16, "parity": True},
    "aoa": {"heads": 3, "parity": True},
}


def captioner(name: str, **changes: Any) -> Captioner:
    torch.manual_seed(0)
    return build(name, **{**CONFIG, **OWN[name], **changes}).eval()


def original(name: str, *, grid: bool = True, **changes: Any) -> dict[str, Tensor]:
    """Return a state dict as the original keeps it, the image network included."""
    own = {} if grid or name == "aoa" else {"global_from": "projected"}
    model = captioner(name, **own, **changes)
    state = to_original(name, model.state_dict(), grid=grid)
    if grid:
        stack = VGG(PLAN).state_dict()
        state |= {f"img_encoder.encoder.{key}": tensor for key, tensor in stack.items()}
    return {key: tensor.contiguous() for key, tensor in state.items()}


def files(folder: Path, state: dict[str, Tensor], words: dict[str, int] = WORDS) -> dict[str, Path]:
    write_tensors(folder / "c.safetensors", state)
    (folder / "words.json").write_text(json.dumps(words))
    return {"checkpoint": folder / "c.safetensors", "wordmap": folder / "words.json"}


def options(name: str, **changes: Any) -> dict[str, Any]:
    return {"captioner": name, "features": "grid", "image_size": SIZE, "heads": 3, **changes}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_imported_run_captions_a_photograph(name: str, tmp_path: Path) -> None:
    import_run(**files(tmp_path, original(name)), out=tmp_path / "run", **options(name))
    run = load_run(tmp_path / "run")
    for ours, tensor in captioner(name).state_dict().items():
        assert torch.equal(run.captioner.state_dict()[ours], tensor)
    extractor = GridExtractor.load(tmp_path / "run")

    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    found = Photographer(tmp_path / "run", {"max_length": 4}).caption(tmp_path / "photo.png")
    features = extractor(extractor.preprocess(Image.open(tmp_path / "photo.png")).unsqueeze(0))
    settings = {**run.info["decoding"], "max_length": 4}
    again = caption_images(run.captioner, Features(features), run.vocabulary, settings)
    assert list(found.words) == run.vocabulary.decode(again[0].word_ids).split()


def test_features_for_an_imported_run_come_from_its_network(tmp_path: Path) -> None:
    """The run's own extractor, or its weights as features.grid.weights, give the features."""
    state = original("aoa")
    import_run(**files(tmp_path, state), out=tmp_path / "run", **options("aoa"))
    run, extractor = load_run(tmp_path / "run"), GridExtractor.load(tmp_path / "run")
    with create_store(
        tmp_path, [1], cells=16, dim=7, dtype="float32", attributes=extractor.spec()
    ) as writer:
        writer.append(torch.randn(1, 16, 7))
    run.check_features(FeatureStore(tmp_path / "features.h5"))
    other = GridExtractor("vgg", VGG(PLAN), SIZE, layer="last", config={"plan": PLAN})
    assert weights_sha256(other.network) != weights_sha256(extractor.network)
    folder = tmp_path / "other"
    folder.mkdir()
    with create_store(
        folder, [1], cells=16, dim=7, dtype="float32", attributes=other.spec()
    ) as writer:
        writer.append(torch.randn(1, 16, 7))
    with pytest.raises(CapscopeError, match="weights_sha256"):
        run.check_features(FeatureStore(folder / "features.h5"))


def test_the_plan_of_vgg16_is_found_in_its_weights() -> None:
    with torch.device("meta"):
        state = VGG(VGG16).state_dict()
    assert plan_of(state) == list(VGG16)
    assert [name for name in state if name.endswith("weight")][-1] == "28.weight"


@pytest.mark.slow
def test_the_weights_of_an_imported_network_can_be_given_to_the_features(tmp_path: Path) -> None:
    with torch.device("meta"):
        stack = VGG(VGG16)
    weights = {name: torch.zeros(t.shape) for name, t in stack.state_dict().items()}
    write_tensors(tmp_path / "extractor.safetensors", weights)
    settings = {
        "network": "vgg16",
        "weights": str(tmp_path / "extractor.safetensors"),
        "layer": None,
        "pool": None,
        "image_size": 32,
        "scale": 1,
    }
    assert build_extractor(settings).grid == (2, 2)


def region_store(folder: Path, dim: int = 7, regions: int = 16) -> Path:
    folder.mkdir()
    with create_region_store(
        folder,
        [1],
        regions=regions,
        dim=dim,
        dtype="float32",
        attributes={"network": "x"},
        details=(),
    ) as writer:
        one = Regions(torch.ones(2, dim), torch.tensor([[0, 0, 0.5, 0.5], [0, 0, 1, 1]]), (9, 9))
        writer.append([one])
    write_manifest(folder, "features", params={})
    return folder


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_region_variant_reads_regions_of_its_size(name: str, tmp_path: Path) -> None:
    given = files(tmp_path, original(name, grid=False))
    chosen = options(name, features="regions")
    import_run(**given, out=tmp_path / "run", **chosen)
    run = load_run(tmp_path / "run")
    store = FeatureStore.open(region_store(tmp_path / "fits"))
    run.check_features(store)
    hidden = run.captioner.hidden(store.read([1]), torch.tensor([[5, 1]]))
    assert run.captioner.readout(hidden.values).shape == (1, 2, 7)
    wide = region_store(tmp_path / "wide", dim=9)
    with pytest.raises(CapscopeError, match="dim = 9, but"):
        run.check_features(FeatureStore.open(wide))
    import_run(**given, out=tmp_path / "known", **chosen, store_dir=tmp_path / "fits")
    assert load_run(tmp_path / "known").info["features"]["network"] == "x"
    message = r"'img_projector.weight' reads 7 numbers a region, expected 9"
    with pytest.raises(CapscopeError, match=message):
        import_run(**given, out=tmp_path / "bad", **chosen, store_dir=wide)
    assert not (tmp_path / "bad").exists()


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


FC = "fc.weight"


@pytest.mark.parametrize(
    ("name", "change", "changes", "message"),
    [
        ("gridtd", lambda s: original("aoa"), {}, r"no tensor '.*'; its tensors are those of aoa"),
        ("adaptive", lambda s: original("gridtd"), {}, r"besides; .* those of gridtd"),
        (
            "aoa",
            lambda s: without(s, FC),
            {},
            "no checkpoint of aoa: it has no tensor 'fc.weight'",
        ),
        (
            "aoa",
            lambda s: {**s, FC: torch.zeros(7, 5)},
            {},
            r"tensor 'fc.weight' has shape \(7, 5\), expected \(7, 6\)",
        ),
        (
            "gridtd",
            lambda s: {**s, "AdaLSTM.x_gate.weight": torch.zeros(6, 13)},
            {},
            r"tensor 'AdaLSTM.x_gate.weight' has shape \(6, 13\), expected \(6, 14\)",
        ),
        ("aoa", lambda s: {**s, FC: torch.full((7, 6), torch.nan)}, {}, "'fc.weight' .* finite"),
        ("aoa", lambda s: original("aoa", vocabulary_size=9), {}, r"\(9, 4\), expected \(7, 4\)"),
        (
            "aoa",
            lambda s: original("aoa", feature_size=8),
            {},
            r"'img_projector.weight' reads 8 channels, expected 7",
        ),
        ("aoa", lambda s: s, {"features": "regions"}, r"reads grid, not regions"),
        ("aoa", lambda s: original("aoa", grid=False), {}, r"shape \(6, 7\), expected 4 axes"),
        (
            "gridtd",
            lambda s: s,
            {"image_size": 32},
            r"'AdaAttention.W_v_proj.weight' has 16 rows, expected 64",
        ),
        ("aoa", lambda s: s, {"heads": 4}, "heads = 4 does not divide hidden = 6"),
        (
            "aoa",
            lambda s: {**s, "img_encoder.encoder.4.0.conv1.weight": torch.zeros(2, 2, 1, 1)},
            {},
            "belongs to no stack",
        ),
        (
            "aoa",
            lambda s: {k: t for k, t in s.items() if "img_encoder" not in k},
            {},
            "no first convolution",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_which_tensor(
    name: str, change: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = files(tmp_path, change(original(name)))
    with pytest.raises(CapscopeError, match=r"c\.safetensors: .*" + message):
        import_run(**given, out=tmp_path / "run", **options(name, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([1], "is no word map: expected an object"),
        ({"a": "1"}, "is no word map: expected an object"),
        ({"<pad>": 0, "a": 1}, "it has no <start>, <end>, <unk>"),
        ({**WORDS, "cat": 9}, "the ids are not 0 to 7, each once"),
    ],
)
def test_a_word_map_that_is_none_is_refused(words: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text(json.dumps(words))
    with pytest.raises(CapscopeError, match=r"words\.json.*" + message):
        read_wordmap(tmp_path / "words.json")


class Canary:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.slow
def test_a_checkpoint_that_runs_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    given = files(tmp_path, original("aoa"))
    canary = tmp_path / "canary"
    given["checkpoint"] = tmp_path / "c.pth"
    torch.save({"state_dict": original("aoa"), "optimizer": Canary(canary)}, given["checkpoint"])
    with pytest.raises(CapscopeError, match=r"c\.pth was not loaded: .* can run code"):
        import_run(**given, out=tmp_path / "run", **options("aoa"))
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


def test_weights_that_were_trained_on_several_devices_are_read(tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in original("aoa").items()}
    import_run(**files(tmp_path, state), out=tmp_path / "run", **options("aoa"))
    assert load_run(tmp_path / "run").info["captioner"] == "aoa"


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("grid", [True, False])
def test_export_gives_the_original_back(name: str, grid: bool, tmp_path: Path) -> None:
    state = original(name, grid=grid)
    chosen = options(name, features="grid" if grid else "regions")
    import_run(**files(tmp_path, state), out=tmp_path / "run", **chosen)
    export_run(tmp_path / "run", tmp_path / "c.pth", tmp_path / "w.json")
    found = torch.load(tmp_path / "c.pth", weights_only=True)["state_dict"]
    assert set(found) == set(state)
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())
    assert json.loads((tmp_path / "w.json").read_text()) == WORDS


def test_what_the_original_cannot_do_is_not_exported(tmp_path: Path) -> None:
    import_run(**files(tmp_path, original("gridtd")), out=tmp_path / "run", **options("gridtd"))
    path = tmp_path / "run/model.json"
    info = json.loads(path.read_text())

    def refused(changes: dict[str, Any], message: str) -> None:
        path.write_text(json.dumps({**info, **changes}))
        write_manifest(tmp_path / "run", "run", params={})
        with pytest.raises(CapscopeError, match=message):
            export_run(tmp_path / "run", tmp_path / "c.pth", tmp_path / "w.json")
        assert not (tmp_path / "c.pth").exists()

    refused({"config": {**info["config"], "parity": False}}, "train with model.parity: true")
    extractor = GridExtractor.load(tmp_path / "run")
    extractor.scale = 2.0
    extractor.save(tmp_path / "run")
    refused({}, "scaled by 2.0")
