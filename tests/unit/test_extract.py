import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bad_images import picture
from click.testing import CliRunner
from safetensors.torch import save_file

from capscope.cli import capscope
from capscope.data.annotations import open_dataset
from capscope.data.images import read_image
from capscope.data.prepare import prepare_dataset
from capscope.errors import CapscopeError
from capscope.features.extract import prepare_features
from capscope.features.grid import GridExtractor
from capscope.features.small import SmallNetwork
from capscope.features.store import FeatureStore
from capscope.files import read_json, read_manifest, write_json, write_manifest

COUNT = 11
CHANNELS = [4, 8]


@pytest.fixture
def params(tmp_path: Path) -> dict[str, Any]:
    """Return parameters for a prepared data set of eleven images and a small random backbone."""
    root = tmp_path / "images"
    root.mkdir()
    entries = []
    for number in range(COUNT):
        picture(30 + number, 40).save(root / f"{number}.png")
        split = "train" if number < 8 else "test"
        sentences = [{"raw": "a cat"}]
        one = {"filename": f"{number}.png", "cocoid": 100 - number, "split": split}
        entries.append(one | {"sentences": sentences})
    (tmp_path / "dataset.json").write_text(json.dumps({"images": entries}))
    torch.manual_seed(0)
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    save_file(SmallNetwork(CHANNELS).state_dict(), backbone / "model.safetensors")
    info = {
        "layer": "pool2",
        "positions": 4,
        "position_scale": 2.0,
        "config": {"channels": CHANNELS},
    }
    write_json(backbone / "model.json", info)
    write_manifest(backbone, "backbone", params={})
    chosen: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parents[2] / "params.yaml").read_text("utf-8")
    )
    chosen["dataset"] |= {
        "name": "toy",
        "reader": "karpathy",
        "karpathy": {
            "annotations": str(tmp_path / "dataset.json"),
            "images": str(root),
            "instances": None,
        },
        "evaluate": ["test"],
    }
    chosen["features"]["grid"] |= {"image_size": 32, "batch_size": 4, "dtype": "float32"}
    prepare_dataset(tmp_path / "data", chosen["dataset"])
    return chosen


def extract(tmp_path: Path, params: dict[str, Any], name: str = "features") -> FeatureStore:
    prepare_features(tmp_path / name, tmp_path / "data", params, tmp_path / "backbone")
    return FeatureStore.open(tmp_path / name)


def test_the_store_holds_what_the_extractor_says_of_each_image(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    store = extract(tmp_path, params)
    extractor = GridExtractor.load(tmp_path / "features")
    dataset = open_dataset(tmp_path / "data", params)
    assert store.ids.tolist() == [image.id for image in dataset.images]
    assert (store.grid, store.dim) == (extractor.grid, extractor.dim) == ((8, 8), 12)
    for image in dataset.images:
        pixels = extractor.preprocess(read_image(dataset.path(image)))
        torch.testing.assert_close(store.read([image.id]).cells, extractor(pixels[None]))
    manifest = read_manifest(tmp_path / "features", "features", check_hashes=True)
    assert manifest["attributes"] == store.attributes == extractor.spec()
    assert (manifest["images"], manifest["skipped"]) == (COUNT, 0)


def test_the_scale_brings_training_images_to_a_mean_square_of_one(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    store = extract(tmp_path, params)
    train = open_dataset(tmp_path / "data", params).split("train")
    cells = store.read([image.id for image in train]).cells[..., : CHANNELS[-1]]
    assert cells.pow(2).mean().item() == pytest.approx(1, abs=1e-3)
    params["features"]["grid"]["scale"] = 1.0
    assert extract(tmp_path, params, "plain").attributes["scale"] == 1.0


def test_the_same_images_give_the_same_bytes(tmp_path: Path, params: dict[str, Any]) -> None:
    for name in ("one", "two"):
        extract(tmp_path, params, name)
    for name in ("features.h5", "extractor.safetensors", "extractor.json", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_image_that_became_unreadable_stops_and_once_mended_the_rest_is_made(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    whole = extract(tmp_path, params, "whole")
    picture = (tmp_path / "images" / "9.png").read_bytes()
    (tmp_path / "images" / "9.png").write_bytes(b"")
    with pytest.raises(CapscopeError, match=r"9\.png is empty"):
        extract(tmp_path, params)
    names = {path.name for path in (tmp_path / "features").iterdir()}
    assert names == {".features.h5.unfinished", ".features.h5.journal"}
    assert read_json(tmp_path / "features/.features.h5.journal")["done"] == 8
    (tmp_path / "images" / "9.png").write_bytes(picture)
    store = extract(tmp_path, params)
    assert store.path.read_bytes() == whole.path.read_bytes()
    assert not any(path.name.startswith(".") for path in (tmp_path / "features").iterdir())


def test_an_image_that_became_unreadable_is_skipped_and_counted(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    (tmp_path / "images" / "9.png").unlink()
    params["dataset"]["on_unreadable"] = "skip"
    store = extract(tmp_path, params)
    assert len(store) == COUNT - 1
    assert 91 not in store
    assert read_manifest(tmp_path / "features", "features")["skipped"] == 1
    assert "91,9.png,image 9.png is missing" in (tmp_path / "features/skipped.csv").read_text()


def test_no_readable_image_at_all_is_an_error(tmp_path: Path, params: dict[str, Any]) -> None:
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    params["dataset"]["on_unreadable"] = "skip"
    with pytest.raises(CapscopeError, match="none of the images"):
        extract(tmp_path, params)


def test_a_network_that_says_nothing_is_an_error(tmp_path: Path, params: dict[str, Any]) -> None:
    backbone = tmp_path / "backbone"
    dead = {
        name: -tensor.abs() * 0 - 1 for name, tensor in SmallNetwork(CHANNELS).state_dict().items()
    }
    save_file(dead, backbone / "model.safetensors")
    write_manifest(backbone, "backbone", params={})
    with pytest.raises(CapscopeError, match="all zero"):
        extract(tmp_path, params)


def test_the_command_makes_the_same_store(tmp_path: Path, params: dict[str, Any]) -> None:
    expected = extract(tmp_path, params)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    folders = [f"--{name}={tmp_path / name}" for name in ("data", "backbone")]
    out = tmp_path / "again"
    arguments = ["features", f"--params={file}", "--kind=grid", *folders, f"--out={out}"]
    found = CliRunner().invoke(capscope, arguments)
    assert found.exit_code == 0, found.output
    assert (out / "features.h5").read_bytes() == expected.path.read_bytes()
