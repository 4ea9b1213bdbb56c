"""Benchmarks of explanations that end at regions: each region is judged by what is in its box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_run import write_run

from capscope.benchmarks import BENCHMARKS
from capscope.benchmarks.run import run_benchmarks
from capscope.data.annotations import read_karpathy
from capscope.data.scenes.lexicon import CLASSES
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.errors import CapscopeError
from capscope.explain.split import explain_split
from capscope.features.regions import Regions
from capscope.features.store import FeatureStore, create_region_store
from capscope.files import write_json, write_manifest
from capscope.params import Params, load_params, merge

SCENES = {"seed": 3, "size": 32, "train": 1, "val": 1, "test": 6, "shift": 0, "bias": 0.8}
MOST, DIM = 6, 5
EXPLAINERS = ["lrp", "attention", "random_decoder"]


@pytest.fixture(scope="module")
def params() -> Params:
    few = {"images": 4}
    overlay: dict[str, Any] = {
        "dataset": {"scenes": SCENES, "evaluate": ["test"]},
        "explanations": {"images": 6, "batch_size": 4, "map_size": 16},
        "benchmarks": {
            "bootstrap": 20,
            "randomisation_images": 4,
            "deletion": few,
            "ablation": few,
            "latent_objects": {"covered": 0.01},
        },
    }
    return merge(load_params([Path(__file__).parents[2] / "params.yaml"]), overlay)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, params: Params) -> dict[str, Path]:
    """Data, random regions, an untrained run over them, and its relevance."""
    root = tmp_path_factory.mktemp("region_benchmarks")
    folders = {name: root / name for name in ("data", "features", "run")}
    write_scenes(folders["data"], SCENES)
    dataset = read_karpathy(folders["data"] / "dataset.json", folders["data"], "scenes")
    generator = torch.Generator().manual_seed(0)
    regions = []
    for image in dataset.images:
        count = 3 + image.id % 4
        corners = torch.rand(count, 2, 2, generator=generator).sort(1).values
        cells = torch.rand(count, DIM, generator=generator)
        classes = torch.randint(0, len(CLASSES), (count,), generator=generator)
        regions.append(Regions(cells, corners.flatten(1), (32, 32), classes))
    folders["features"].mkdir()
    with create_region_store(
        folders["features"],
        [image.id for image in dataset.images],
        regions=MOST,
        dim=DIM,
        dtype="float32",
        attributes={"network": "toy", "class_names": list(CLASSES)},
        details=("class_ids",),
    ) as writer:
        writer.append(regions)
    write_manifest(folders["features"], "features", params={})
    vocabulary = build_vocabulary([t for image in dataset.images for t in image.tokens], 1)
    torch.manual_seed(1)
    write_run(folders["run"], None, vocabulary, FeatureStore.open(folders["features"]).attributes)
    captions = [
        {"image_id": image.id, "word_ids": vocabulary.encode(image.tokens[k % 5])}
        for k, image in enumerate(dataset.split("test"))
    ]
    write_json(folders["run"] / "decoded" / "test.json", captions)
    data, features, run = folders["data"], folders["features"], folders["run"]
    explain_split(
        run, data, features, run / "relevance", params, split="test", explainers=EXPLAINERS
    )
    return folders


def table(folders: dict[str, Path], params: Params, name: str, out: Path) -> pd.DataFrame:
    run_benchmarks([name], folders["run"], folders["data"], folders["features"], out, params)
    return pd.read_csv(out / f"{name}.csv")


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "removal"])
def test_every_benchmark_measures_regions(
    folders: dict[str, Path], params: Params, tmp_path: Path, name: str
) -> None:
    rows = table(folders, params, name, tmp_path / "a")
    table(folders, params, name, tmp_path / "b")
    first, again = (tmp_path / folder / f"{name}.csv" for folder in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()
    assert ("lrp" if name != "components" else "VF") in set(rows["explainer"])
    assert (rows["n"] > 0).all()
    if name != "hallucination":  # without a hallucinated word, the area is not defined
        assert np.isfinite(rows["value"]).all()
    if name in ("ground_truth", "correctness"):
        assert {"grid", "pixels"} == set(rows["resolution"])
        assert {"random", "centre"} <= set(rows["explainer"])
        assert rows["value"].between(0, 1).all()


def test_removal_says_what_is_missing_where_regions_come_from_elsewhere(
    folders: dict[str, Path], params: Params, tmp_path: Path
) -> None:
    with pytest.raises(CapscopeError, match="nothing that turns images into its features"):
        table(folders, params, "removal", tmp_path)


def test_deleting_patches_needs_a_network_behind_a_grid(
    folders: dict[str, Path], params: Params, tmp_path: Path
) -> None:
    for name in ("deletion", "ablation"):
        chosen = merge(params, {"benchmarks": {name: {"pixels": True}}})
        with pytest.raises(CapscopeError, match="no network that turns images into its features"):
            table(folders, chosen, name, tmp_path)
