"""From a run to its relevance stores and benchmark tables, and what goes wrong on the way."""

from __future__ import annotations

import csv
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_run import write_run

from capscope.benchmarks.run import run_benchmarks
from capscope.data.annotations import read_karpathy
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.errors import CapscopeError
from capscope.explain import split
from capscope.explain.split import explain_split, open_subject
from capscope.explain.store import FILE, RelevanceStore
from capscope.features.extract import extract_grid
from capscope.features.grid import GridExtractor
from capscope.features.small import SmallNetwork
from capscope.features.store import FeatureStore
from capscope.files import MANIFEST, manifest_of, read_json, write_json, write_manifest
from capscope.models.gridtd import GridTD
from capscope.params import Params, load_params, merge
from capscope.shards import all_shards

SIZE = 32
SETTINGS = {"seed": 3, "size": SIZE, "train": 1, "val": 1, "test": 6, "shift": 2, "bias": 0.8}
EXPLAINERS = ["lrp", "attention"]


@pytest.fixture(scope="module")
def params() -> Params:
    overlay: dict[str, Any] = {
        "dataset": {"scenes": SETTINGS, "evaluate": ["test"]},
        "explanations": {
            "explainers": EXPLAINERS,
            "controls": ["feature_norm"],
            "images": 5,
            "batch_size": 2,
            "map_size": 16,
        },
        "benchmarks": {"bootstrap": 20, "removal_images": 4},
    }
    return merge(load_params([Path(__file__).parents[2] / "params.yaml"]), overlay)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Data, features and an untrained run with captions."""
    data, features, run = tmp_path / "data", tmp_path / "features", tmp_path / "run"
    write_scenes(data, SETTINGS)
    dataset = read_karpathy(data / "dataset.json", data, "scenes")
    torch.manual_seed(0)
    config = {"channels": [4, 6, 8]}
    network = SmallNetwork(**config)
    extractor = GridExtractor("small", network, SIZE, layer="last", positions=4, config=config)
    features.mkdir()
    extractor.save(features)
    extract_grid(dataset, extractor, features, batch_size=4, dtype="float32", workers=1)
    write_manifest(features, "features", params={})
    vocabulary = build_vocabulary([t for image in dataset.images for t in image.tokens], 1)
    write_run(run, extractor, vocabulary, FeatureStore.open(features).attributes)
    captions = [
        {"image_id": image.id, "word_ids": vocabulary.encode(image.tokens[k % 5])}
        for k, image in enumerate(dataset.split("test"))
    ]
    write_json(run / "decoded" / "test.json", captions)
    return {"data": data, "features": features, "run": run}


def explain(
    folders: dict[str, Path], params: Params, *explainers: str, split: str = "test"
) -> Path:
    """Return the folder of the last store."""
    out = folders["run"] / "relevance"
    explain_split(
        folders["run"],
        folders["data"],
        folders["features"],
        out,
        params,
        split=split,
        explainers=explainers,
    )
    return out / explainers[-1] / split


def benchmark(folders: dict[str, Path], params: Params, out: Path, *names: str) -> None:
    run_benchmarks(names, folders["run"], folders["data"], folders["features"], out, params)


def test_every_benchmark_makes_its_table_from_the_stores_of_a_run(
    folders: dict[str, Path], params: Params, tmp_path: Path
) -> None:
    explain(folders, params, *EXPLAINERS, "feature_norm")
    names = ("ground_truth", "removal", "conservation")
    benchmark(folders, params, tmp_path, *names)
    for name in names:
        with (tmp_path / f"{name}.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert {"lrp"} <= {row["explainer"] for row in rows}
        assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)


def test_captions_keep_their_order_although_batches_are_sorted_by_length(
    folders: dict[str, Path], params: Params
) -> None:
    captions = read_json(folders["run"] / "decoded" / "test.json")
    _, subject = open_subject(folders["run"])
    with RelevanceStore(explain(folders, params, "lrp")) as store:
        assert len(store) == 5
        for stored, caption in zip(store, captions, strict=False):
            assert stored.image_id == caption["image_id"]
            assert list(stored.word_ids) == caption["word_ids"]
            assert len(stored.grid) == len(caption["word_ids"])
    assert subject.network.image_size == SIZE


def everything(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5])
def test_shards_are_joined_to_the_stores_and_tables_of_one_job(
    folders: dict[str, Path], params: Params, tmp_path: Path, count: int
) -> None:
    measures = ("ground_truth", "removal", "deletion", "conservation")
    names = ["lrp", "feature_norm", "lime"]
    settings = {"explanations": {"lime": {"samples": 20, "replacement": "noise"}}}
    params = merge(params, settings | {"benchmarks": {"deletion": {"images": 3}}})
    where = [folders[name] for name in ("run", "data", "features")]
    found: list[dict[str, bytes]] = []
    for shards in (1, count):
        relevance, timing = folders["run"] / "relevance", tmp_path / f"{shards}.json"
        given = {"split": "test", "explainers": names, "timing": timing}
        if shards == 1:
            explain_split(*where, relevance, params, **given)
            run_benchmarks(measures, *where, tmp_path / "one", params)
        else:
            for shard in all_shards(shards):
                explain_split(*where, relevance, params, **given, shard=shard)
            explain_split(*where, relevance, params, **given, gather=shards)
            for shard in reversed(all_shards(shards)):
                run_benchmarks(measures, *where, tmp_path / "many", params, shard=shard)
            run_benchmarks(measures, *where, tmp_path / "many", params, gather=shards)
        found.append(everything(relevance))
        assert {one["words"] for one in read_json(timing).values()} == {words_of(relevance)}
        shutil.rmtree(relevance) if shards == 1 else None
    assert found[0] == found[1]
    assert everything(tmp_path / "one") == everything(tmp_path / "many")


def words_of(relevance: Path) -> int:
    return int(read_json(relevance / "lrp" / "test" / MANIFEST)["words"])


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(folders: dict[str, Path], params: Params) -> None:
    path = explain(folders, params, "lrp") / FILE
    first = path.read_bytes()
    time.sleep(1.1)
    assert (explain(folders, params, "lrp") / FILE).read_bytes() == first


def test_a_caption_with_a_word_outside_the_vocabulary_is_refused(
    folders: dict[str, Path], params: Params
) -> None:
    path = folders["run"] / "decoded" / "test.json"
    captions = read_json(path)
    captions[1]["word_ids"][0] = 10_000
    write_json(path, captions)
    with pytest.raises(CapscopeError, match=r"test.json: image \d+ has a word id outside"):
        explain(folders, params, "lrp")


def test_captions_of_another_split_are_refused(folders: dict[str, Path], params: Params) -> None:
    decoded = folders["run"] / "decoded"
    (decoded / "shift.json").write_bytes((decoded / "test.json").read_bytes())
    with pytest.raises(CapscopeError, match="is not of the split shift"):
        explain(folders, params, "lrp", split="shift")


def test_captions_without_any_word_are_refused(folders: dict[str, Path], params: Params) -> None:
    write_json(folders["run"] / "decoded" / "test.json", [{"image_id": 3, "word_ids": []}])
    with pytest.raises(CapscopeError, match="no caption with a word"):
        explain(folders, params, "lrp")


def test_features_of_another_kind_are_refused(folders: dict[str, Path], params: Params) -> None:
    info = read_json(folders["run"] / "model.json")
    info["features"]["weights_sha256"] = "0" * 64
    write_json(folders["run"] / "model.json", info)
    write_manifest(folders["run"], "run", params={})
    with pytest.raises(CapscopeError, match="weights_sha256"):
        explain(folders, params, "lrp")


def test_a_missing_store_is_an_error_that_names_it(
    folders: dict[str, Path], params: Params, tmp_path: Path
) -> None:
    (explain(folders, params, "lrp", "attention") / MANIFEST).unlink()
    with pytest.raises(CapscopeError, match="attention/test is not a finished relevance folder"):
        benchmark(folders, params, tmp_path, "ground_truth")


def test_a_store_that_was_made_again_alone_is_not_compared_with_the_others(
    folders: dict[str, Path], params: Params, tmp_path: Path
) -> None:
    explain(folders, params, "lrp", "feature_norm")
    index = folders["run"] / "relevance" / "test.json"
    before = {one: one.read_bytes() for one in (index, manifest_of(index))}
    path = folders["run"] / "decoded" / "test.json"
    captions = read_json(path)
    captions[0]["word_ids"].pop()
    write_json(path, captions)
    explain(folders, params, "lrp")
    for one, content in before.items():
        one.write_bytes(content)
    with pytest.raises(CapscopeError, match="may explain other captions"):
        benchmark(folders, params, tmp_path, "conservation")


def test_an_interrupted_explanation_leaves_no_finished_store(
    folders: dict[str, Path], params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = explain(folders, params, "lrp")
    dataset = read_json(folders["data"] / "dataset.json")
    last = [image for image in dataset["images"] if image["split"] == "test"][4]
    original = split.read_image

    def interrupted(path: Path) -> Any:
        if path.name == last["filename"]:
            raise CapscopeError(f"cannot read {path}")
        return original(path)

    monkeypatch.setattr(split, "read_image", interrupted)
    with pytest.raises(CapscopeError, match=last["filename"]):
        explain(folders, params, "lrp")
    assert not (out / MANIFEST).exists()


def test_a_method_that_does_not_fit_the_captioner_is_left_out_with_its_reason(
    folders: dict[str, Path], params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GridTD, "attends", False)
    explain(folders, params, "attention", "lrp")
    index = read_json(folders["run"] / "relevance" / "test.json")
    assert list(index["explainers"]) == ["lrp"]
    assert "has no attention" in index["left_out"]["attention"]
