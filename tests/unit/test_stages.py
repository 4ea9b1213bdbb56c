"""Fine-tuning stages: what they start from, what they minimise, what they leave behind."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_data import tiny_folders, tiny_params

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.captions import decode_run
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import read_json, sha256_of, write_json, write_manifest
from capscope.models.checkpoint import load_run
from capscope.params import merge
from capscope.training.loop import Trainer
from capscope.training.run import train_run
from capscope.training.start import start_from
from capscope.training.validation import SCORES

TUNINGS = ["scst", "lrp_xe", "lrp_scst"]
Folders = dict[str, Path]


def train(out: Path, folders: Folders, params: Any, stage: str, start: Path | None) -> Path:
    arguments = [folders["data"], folders["vocabulary"], folders["features"], params]
    train_run(out, *arguments, system="gridtd", stage=stage, seed=1, from_dir=start)
    return out


def with_stage(params: Any, stage: str, **changes: Any) -> Any:
    return merge(params, {"systems": {"gridtd": {stage: changes}}})


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def params() -> Any:
    return tiny_params()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, params) -> Folders:
    return tiny_folders(tmp_path_factory.mktemp("tiny"), params)


@pytest.fixture(scope="module")
def start(tmp_path_factory, folders, params) -> Path:
    longer = with_stage(params, "xe", epochs=30, patience=30, learning_rate=0.02)
    return train(tmp_path_factory.mktemp("runs") / "xe", folders, longer, "xe", None)


@pytest.fixture(scope="module", params=TUNINGS)
def stage(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, folders, params, start, stage) -> Path:
    return train(tmp_path_factory.mktemp("runs") / stage, folders, params, stage, start)


def test_a_fine_tuning_logs_the_score_that_it_starts_from(tuned, start, stage):
    rows = metrics(tuned)
    assert [rows[0][key] for key in ("epoch", "step", "split", "metric")] == [
        *("0", "0", "val", "cider")
    ]
    assert float(rows[0]["value"]) == pytest.approx(load_run(start).info["validation_cider"])
    assert load_run(tuned).info["validation_cider"] >= float(rows[0]["value"])
    logged = {row["metric"] for row in rows if row["epoch"] == "1"}
    own = {
        "lrp_xe": {"loss_plain", "loss_weighted"},
        "scst": {"reward", "length"},
    }
    always = {"learning_rate", "loss", *SCORES}
    assert logged == always | own.get(stage, own["scst"])


def test_a_run_knows_what_it_came_from_and_how_it_was_trained(tuned, start, stage, params):
    info = load_run(tuned).info
    assert {key: info["from"][key] for key in ("system", "stage", "seed", "from")} == {
        **{"system": "gridtd", "stage": "xe", "seed": 1, "from": None}
    }
    assert info["from"]["manifest_sha256"] == sha256_of(start / "manifest.json")
    assert read_json(tuned / "manifest.json")["inputs"]["from"] == info["from"]["manifest_sha256"]
    section = params["systems"]["gridtd"][stage]
    for key in ("end_token", "frequencies", "baseline", "samples", "weight"):
        assert info["signature"].get(key) == section.get(key)
    assert ("neutral_words" in info["signature"]) == stage.startswith("lrp")


def test_the_same_seed_gives_the_same_bytes(tuned, start, stage, tmp_path, folders, params):
    again = train(tmp_path / "again", folders, params, stage, start)
    assert content(again) == content(tuned)


@pytest.fixture(scope="module", params=[0, 1000], ids=lambda seconds: f"{seconds} s")
def checkpointed(request, params, stage) -> Any:
    """Parameters with a checkpoint after every step, or none before the end."""
    return with_stage(params, stage, checkpoint_seconds=request.param)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folders, checkpointed, stage, start) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "run"
    return content(train(out, folders, checkpointed, stage, start))


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2, 4])
def test_an_interrupted_fine_tuning_ends_at_the_same_bytes(
    step, checkpointed, whole, stage, start, tmp_path, monkeypatch, folders
):
    original = Trainer._step

    class Killed(BaseException):
        pass

    def dies(self, batch):
        if self.progress.step == step:
            raise Killed
        original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dies)
        with pytest.raises(Killed):
            train(tmp_path / "killed", folders, checkpointed, stage, start)
    train(tmp_path / "killed", folders, checkpointed, stage, start)
    assert content(tmp_path / "killed") == whole


def test_a_fine_tuning_that_only_harms_keeps_the_weights_that_it_started_from(
    tmp_path, folders, params, start, stage
):
    harmful = with_stage(params, stage, learning_rate=1.0, schedule="constant", epochs=1)
    out = train(tmp_path / "run", folders, harmful, stage, start)
    info = load_run(out).info
    assert info["epoch"] == 0
    assert content(out)["model.safetensors"] == content(start)["model.safetensors"]
    assert content(out)["last.safetensors"] != content(out)["model.safetensors"]


def test_features_with_nan_are_named_as_what_to_check(
    tmp_path, folders, params, start, stage, monkeypatch
):
    original = FeatureStore.read

    def spoilt(self, ids):
        found = original(self, ids)
        return found._replace(cells=found.cells * torch.nan)

    monkeypatch.setattr(FeatureStore, "read", spoilt)
    with pytest.raises(CapscopeError, match=r"diverged.*check the features for NaN"):
        train(tmp_path / "run", folders, params, stage, start)


def test_stages_chain(tmp_path, folders, params, start):
    scst = train(tmp_path / "scst", folders, params, "scst", start)
    last = train(tmp_path / "lrp_scst", folders, params, "lrp_scst", scst)
    history = load_run(last).info["from"]
    assert [history["stage"], history["from"]["stage"]] == ["scst", "xe"]
    assert history["signature"]["reward"] == "CIDEr-D"


def test_a_run_can_be_trained_on_with_the_stage_that_made_it(tmp_path, folders, params, start):
    """The control of a fine-tuning: as many further steps of XE."""
    out = train(tmp_path / "xe", folders, params, "xe", start)
    assert load_run(out).info["from"]["stage"] == "xe"
    assert metrics(out)[0]["epoch"] == "0"


def test_a_fine_tuning_without_a_start_says_which_run_it_needs(tmp_path, folders, params, stage):
    with pytest.raises(CapscopeError, match=r"starts from a trained captioner.*--from"):
        train(tmp_path / "run", folders, params, stage, None)
    with pytest.raises(CapscopeError, match="not a finished run"):
        train(tmp_path / "run", folders, params, stage, tmp_path)


def test_a_run_is_not_its_own_start(folders, params, start):
    with pytest.raises(CapscopeError, match="start from itself"):
        train(start, folders, params, "scst", start)


@pytest.mark.parametrize("kind", ["vocabulary", "size", "features"])
def test_a_start_that_does_not_fit_is_refused(kind, tmp_path, folders, params, start):
    other = tmp_path / "start"
    shutil.copytree(start, other)
    info = read_json(other / "model.json")
    named = {
        "vocabulary": "another vocabulary",
        "size": r"model\.hidden = 16, the parameters say 20",
        "features": "network",
    }[kind]
    if kind == "vocabulary":
        words = info["vocabulary"]["words"]
        words[1], words[2] = words[2], words[1]
        info["vocabulary_sha256"] = Vocabulary.from_json(info["vocabulary"]).sha256
    elif kind == "size":
        params = merge(params, {"systems": {"gridtd": {"model": {"hidden": 20}}}})
    else:
        info["features"]["network"] = "vgg16"
    write_json(other / "model.json", info)
    write_manifest(other, "run", params={})
    with pytest.raises(CapscopeError, match=named):
        train(tmp_path / "run", folders, params, "scst", other)


def test_a_start_of_another_captioner_is_refused(folders, start):
    run = load_run(start)
    store = FeatureStore.open(folders["features"])
    given = {"config": run.info["config"], "vocabulary": run.vocabulary, "store": store}
    with pytest.raises(CapscopeError, match="run of the captioner 'gridtd', not 'aoa'"):
        start_from(start, run.captioner, name="aoa", **given)


def test_dropout_may_change_between_stages(tmp_path, folders, params, start):
    params = merge(params, {"systems": {"gridtd": {"model": {"dropout": 0.5}}}})
    out = train(tmp_path / "run", folders, params, "lrp_xe", start)
    assert load_run(out).info["config"]["dropout"] == 0.5


def test_one_sample_has_no_others_to_be_compared_with(tmp_path, folders, params, start):
    alone = with_stage(params, "scst", samples=1)
    with pytest.raises(CapscopeError, match="samples: 2 or more"):
        train(tmp_path / "run", folders, alone, "scst", start)
    greedy = with_stage(params, "scst", samples=1, baseline="greedy", dropout=True)
    train(tmp_path / "run", folders, greedy, "scst", start)


def test_a_fine_tuned_run_speaks(tuned, folders, params, tmp_path):
    out = tmp_path / "test.json"
    decode_run(tuned, folders["data"], folders["features"], params, split="test", out=out)
    assert all(entry["caption"] for entry in read_json(out))


def test_the_last_weights_are_kept_on_request(tmp_path, folders, params, start):
    harmful = with_stage(params, "lrp_xe", learning_rate=1.0, schedule="constant", keep="last")
    out = train(tmp_path / "run", folders, harmful, "lrp_xe", start)
    info, rows = load_run(out).info, metrics(out)
    assert info["epoch"] == 2
    last = [row["value"] for row in rows if row["metric"] == "cider"][-1]
    assert info["validation_cider"] == float(last)
    assert content(out)["model.safetensors"] == content(out)["last.safetensors"]


def test_epochs_of_a_few_steps_go_through_the_data_in_turn(folders, params, start, tmp_path):
    whole = with_stage(params, "lrp_xe", epochs=2, keep="last", validation_images=1)
    pieces = with_stage(whole, "lrp_xe", epochs=6, epoch_steps=3, patience=6)
    runs = [
        train(tmp_path / name, folders, changed, "lrp_xe", start)
        for name, changed in {"whole": whole, "pieces": pieces}.items()
    ]
    steps = [int(metrics(run)[-1]["step"]) for run in runs]
    assert steps == [18, 18]
    assert len({content(run)["model.safetensors"] for run in runs}) == 1
