"""Runs on disk: training, resuming, loading, and everything that must be refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_data import tiny_folders, tiny_params

from capscope.data.annotations import open_dataset
from capscope.data.captions import open_captions
from capscope.decoding.captions import decode_run
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import manifest_of, read_json, write_json, write_manifest
from capscope.models import build
from capscope.models.checkpoint import load_run
from capscope.params import merge
from capscope.shards import all_shards
from capscope.tensors import read_tensors, write_tensors
from capscope.training.loop import Recipe, Trainer
from capscope.training.run import train_run
from capscope.training.validation import Validation, validated


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, params):
    return tiny_folders(tmp_path_factory.mktemp("tiny"), params)


def train(out: Path, folders, params, seed: int = 1) -> bool:
    return train_run(
        out,
        folders["data"],
        folders["vocabulary"],
        folders["features"],
        params,
        system="gridtd",
        stage="xe",
        seed=seed,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, folders, params):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(out, folders, params)
    return out


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run that a test may spoil; its manifest is written anew."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def reseal(folder: Path) -> None:
    write_manifest(folder, "run", params={})


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


class Killed(BaseException):
    """Stands for whatever ends a process between two statements."""


def test_a_finished_run_holds_what_the_design_says(run):
    files = set(content(run))
    assert files == {
        "model.safetensors",
        "last.safetensors",
        "model.json",
        "metrics.csv",
        "history.csv",
        "manifest.json",
    }
    assert not (run / "state").exists()
    assert list((run / "tensorboard").iterdir())
    lines = (run / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,step,split,metric,value"
    found = {tuple(line.split(",")[2:4]) for line in lines[1:]}
    assert found == {("train", "loss"), ("train", "learning_rate")} | {
        ("val", name) for name in ("cider", "bleu4", "rouge_l", "loss")
    }
    assert len(lines) == 1 + 2 * len(found)


def test_the_history_holds_every_so_manyth_step(run, tmp_path, folders):
    train(tmp_path / "often", folders, tiny_params(log_every=2, scheduled_sampling=0.5))
    lines = (tmp_path / "often" / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,step,metric,value"
    steps = [int(line.split(",")[1]) for line in lines[1:]]
    metrics = {line.split(",")[2] for line in lines[1:]}
    assert metrics == {"loss", "learning_rate", "scheduled_sampling"}
    last = int((tmp_path / "often" / "metrics.csv").read_text().splitlines()[-1].split(",")[1])
    assert steps == [step for step in range(2, last + 1, 2) for _ in metrics]
    assert (run / "history.csv").read_text().startswith("epoch,step,metric,value")


def test_the_validation_loss_is_the_mean_over_all_words_of_the_references(folders, params):
    dataset, store = open_dataset(folders["data"], params), FeatureStore.open(folders["features"])
    vocabulary, captions = open_captions(folders["vocabulary"])
    recipe, _ = Recipe.split(params["systems"]["gridtd"]["xe"])
    torch.manual_seed(0)
    sizes = {"vocabulary_size": len(vocabulary), "feature_size": store.dim}
    captioner = build("lstm", **sizes, embedding=6, hidden=8)
    total = words = 0
    for image_id in validated(dataset, recipe):
        for row in captions.rows_of(image_id):
            ids = captions.labels[row, : captions.lengths[row]].tolist()
            fed = torch.tensor([[vocabulary.start, *ids]])
            hidden = captioner.hidden(store.read([image_id]), fed).values
            logits = captioner.readout(hidden).detach()
            for place, word in enumerate([*ids, vocabulary.end]):
                total -= float(logits[0, place].log_softmax(-1)[word])
                words += 1
    validation = Validation(dataset, captions, store, vocabulary, recipe)
    assert validation(captioner)["loss"] == pytest.approx(total / words, rel=1e-5)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(run, tmp_path, folders, params):
    train(tmp_path / "same", folders, params)
    train(tmp_path / "other", folders, params, seed=2)
    assert content(tmp_path / "same") == content(run)
    assert content(tmp_path / "other")["model.safetensors"] != content(run)["model.safetensors"]


def test_training_a_finished_run_again_does_nothing(own_run, folders, params):
    before = content(own_run)
    assert not train(own_run, folders, params)
    assert content(own_run) == before


def test_training_with_other_parameters_replaces_the_run(own_run, folders, params):
    assert train(own_run, folders, tiny_params(clip_value=0.2))
    manifest = read_json(own_run / "manifest.json")
    assert manifest["params"]["xe"]["clip_value"] == 0.2


@pytest.fixture(scope="module", params=[0, 1000], ids=lambda seconds: f"{seconds} s")
def checkpointed(request):
    """Parameters with a checkpoint after every step, or none before the end."""
    return tiny_params(checkpoint_seconds=request.param)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folders, checkpointed):
    out = tmp_path_factory.mktemp("whole") / "run"
    train(out, folders, checkpointed)
    return content(out)


@pytest.mark.parametrize("step", [1, 3, 5, 7, 9])
def test_an_interrupted_training_ends_at_the_same_bytes(
    step, checkpointed, whole, tmp_path, monkeypatch, folders
):
    original = Trainer._step

    def dies(self, rows):
        if self.progress.step == step:
            raise Killed
        return original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dies)
        with pytest.raises(Killed):
            train(tmp_path / "killed", folders, checkpointed)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    train(tmp_path / "killed", folders, checkpointed)
    assert content(tmp_path / "killed") == whole


def unfinished(out: Path, folders, params, monkeypatch) -> None:
    """Leave a state of one epoch behind."""
    original = Trainer._epoch

    def dies(self, board, bar):
        if self.progress.epoch == 1:
            raise Killed
        original(self, board, bar)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", dies)
        with pytest.raises(Killed):
            train(out, folders, params)


def test_a_state_of_other_parameters_is_refused(tmp_path, folders, params, monkeypatch):
    unfinished(tmp_path / "run", folders, params, monkeypatch)
    with pytest.raises(CapscopeError, match=r"state holds an unfinished training.*delete"):
        train(tmp_path / "run", folders, tiny_params(clip_value=0.2))
    assert train(tmp_path / "run", folders, params)


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero"])
def test_a_damaged_state_is_refused(damage, tmp_path, folders, params, monkeypatch):
    unfinished(tmp_path / "run", folders, params, monkeypatch)
    path = tmp_path / "run" / "state" / "state.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    path.write_bytes({"truncate": data[:-9], "zero": b""}.get(damage, data))
    with pytest.raises(CapscopeError, match=r"state\.safetensors"):
        train(tmp_path / "run", folders, params)


def test_a_diverging_training_says_so(tmp_path, folders, params):
    wild = merge(
        params, {"systems": {"gridtd": {"xe": {"learning_rate": 1e30, "schedule": "constant"}}}}
    )
    with pytest.raises(CapscopeError, match=r"diverged.*learning_rate"):
        train(tmp_path / "run", folders, wild)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_training_stops_when_the_score_does_not_rise(tmp_path, folders):
    params = tiny_params(epochs=9, patience=2, learning_rate=1e-9, schedule="constant")
    train(tmp_path / "run", folders, params)
    epochs = [
        int(line.split(",")[0])
        for line in content(tmp_path / "run")["metrics.csv"].decode().splitlines()[1:]
    ]
    assert max(epochs) == 3
    assert load_run(tmp_path / "run").info["epoch"] == 1


def test_unknown_systems_and_stages_are_refused(tmp_path, folders, params):
    arguments = [folders["data"], folders["vocabulary"], folders["features"], params]
    with pytest.raises(CapscopeError, match="no system 'other'"):
        train_run(tmp_path, *arguments, system="other", stage="xe", seed=1)
    with pytest.raises(CapscopeError, match="no stage 'guess'; it has: xe, scst"):
        train_run(tmp_path, *arguments, system="gridtd", stage="guess", seed=1)


def test_features_of_other_images_are_refused(tmp_path, folders, params):
    other = tiny_folders(tmp_path / "other", params, images=20)
    mixed = {**folders, "features": other["features"]}
    with pytest.raises(CapscopeError, match="no features of image"):
        train(tmp_path / "run", mixed, params)


def test_a_vocabulary_of_another_run_is_refused(tmp_path, folders, params):
    shutil.copytree(folders["vocabulary"], tmp_path / "vocabulary")
    loaded = read_json(tmp_path / "vocabulary" / "vocabulary.json")
    loaded["words"][1], loaded["words"][2] = loaded["words"][2], loaded["words"][1]
    write_json(tmp_path / "vocabulary" / "vocabulary.json", loaded)
    write_manifest(tmp_path / "vocabulary", "vocabulary", params={})
    with pytest.raises(CapscopeError, match="another vocabulary"):
        train(tmp_path / "run", {**folders, "vocabulary": tmp_path / "vocabulary"}, params)


def test_a_loaded_run_speaks_as_the_trained_one(run, folders, params):
    loaded = load_run(run)
    assert not loaded.captioner.training
    assert loaded.info["system"] == "gridtd"
    assert len(loaded.vocabulary) == loaded.captioner.vocabulary_size


def test_a_tensor_of_another_shape_is_named(own_run):
    tensors = read_tensors(own_run / "model.safetensors")
    tensors["words.bias"] = torch.zeros(3)
    write_tensors(own_run / "model.safetensors", tensors)
    reseal(own_run)
    with pytest.raises(CapscopeError, match=r"words.bias has shape \(3,\), expected \(\d+,\)"):
        load_run(own_run)


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_missing_and_unexpected_tensors_are_named(own_run, change):
    tensors = read_tensors(own_run / "model.safetensors")
    if change == "missing":
        del tensors["words.bias"]
    else:
        tensors["extra"] = torch.zeros(1)
    write_tensors(own_run / "model.safetensors", tensors)
    reseal(own_run)
    with pytest.raises(CapscopeError, match="words.bias" if change == "missing" else "extra"):
        load_run(own_run)


def test_a_changed_vocabulary_is_refused(own_run):
    info = read_json(own_run / "model.json")
    info["vocabulary"]["words"][1] = "zebra"
    write_json(own_run / "model.json", info)
    reseal(own_run)
    with pytest.raises(CapscopeError, match="vocabulary has the hash"):
        load_run(own_run)


def test_an_unfinished_run_and_a_cut_file_are_refused(own_run, tmp_path):
    with pytest.raises(CapscopeError, match="not a finished run"):
        load_run(tmp_path)
    path = own_run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CapscopeError, match="bytes"):
        load_run(own_run)
    reseal(own_run)
    with pytest.raises(CapscopeError, match="not a valid safetensors file"):
        load_run(own_run)


def test_a_pickle_in_place_of_the_weights_never_runs(own_run, tmp_path):
    class Canary:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    torch.save({"words.bias": Canary()}, own_run / "model.safetensors")
    reseal(own_run)
    with pytest.raises(CapscopeError, match="safetensors"):
        load_run(own_run)
    assert not (tmp_path / "canary").exists()


def test_features_of_another_kind_are_refused(own_run, folders, params, tmp_path):
    info = read_json(own_run / "model.json")
    info["features"]["network"] = "vgg16"
    write_json(own_run / "model.json", info)
    reseal(own_run)
    with pytest.raises(CapscopeError, match="network"):
        decode_run(
            own_run,
            folders["data"],
            folders["features"],
            params,
            split="test",
            out=tmp_path / "out.json",
        )
    assert not (tmp_path / "out.json").exists()


def test_decoding_writes_a_coco_results_file(run, folders, params, tmp_path):
    out = tmp_path / "test.json"
    arguments = [run, folders["data"], folders["features"]]
    decode_run(*arguments, params, split="test", out=out)
    entries = read_json(out)
    vocabulary = load_run(run).vocabulary
    images = [
        i for i in read_json(folders["data"] / "dataset.json")["images"] if i["split"] == "test"
    ]
    assert [entry["image_id"] for entry in entries] == [image["cocoid"] for image in images]
    for entry in entries:
        assert entry["caption"] == vocabulary.decode(entry["word_ids"])
        assert len(entry["log_probs"]) == len(entry["word_ids"]) + 1
        assert "<" not in entry["caption"]
    one = merge(params, {"decoding": {"batch_size": 1}})
    decode_run(*arguments, one, split="test", out=tmp_path / "one.json")
    alone = read_json(tmp_path / "one.json")
    assert [entry["word_ids"] for entry in alone] == [entry["word_ids"] for entry in entries]


@pytest.mark.parametrize("count", [1, 3, 9])
def test_shards_of_captions_are_joined_to_the_file_of_one_job(
    run, folders, params, tmp_path, count
):
    arguments = [run, folders["data"], folders["features"]]
    for_shards = merge(params, {"decoding": {"batch_size": 2}})
    whole, out = tmp_path / "whole" / "test.json", tmp_path / "out" / "test.json"
    decode_run(*arguments, for_shards, split="test", out=whole)
    for shard in reversed(all_shards(count)):
        decode_run(*arguments, for_shards, split="test", out=out, shard=shard)
    assert not out.exists()
    if count == 3:
        with pytest.raises(CapscopeError, match="made with other parameters"):
            decode_run(*arguments, params, split="test", out=out, gather=count)
        with pytest.raises(CapscopeError, match=r"shard 1-of-2 .* is not finished"):
            decode_run(*arguments, for_shards, split="test", out=out, gather=2)
    decode_run(*arguments, for_shards, split="test", out=out, gather=count)
    for made in (whole, out):
        names = sorted(path.name for path in made.parent.iterdir())
        assert names == ["test.json", "test.json.manifest"]
    assert out.read_bytes() == whole.read_bytes()
    assert manifest_of(out).read_bytes() == manifest_of(whole).read_bytes()


def test_several_runs_caption_as_an_ensemble(run, folders, params, tmp_path):
    arguments = [run, folders["data"], folders["features"], params]
    decode_run(*arguments, split="test", out=tmp_path / "alone.json")
    decode_run(*arguments, split="test", out=tmp_path / "twice.json", also=[run], weights=[3, 1])
    alone, twice = read_json(tmp_path / "alone.json"), read_json(tmp_path / "twice.json")
    assert [entry["word_ids"] for entry in twice] == [entry["word_ids"] for entry in alone]
    with pytest.raises(CapscopeError, match="give each member one positive number"):
        decode_run(*arguments, split="test", out=tmp_path / "x", also=[run], weights=[1])
    assert not (tmp_path / "x").exists()


def test_a_split_without_images_is_an_error(run, folders, params, tmp_path):
    with pytest.raises(CapscopeError, match="shift"):
        decode_run(
            run, folders["data"], folders["features"], params, split="shift", out=tmp_path / "x"
        )


def test_model_weights_are_ordinary_safetensors(run):
    assert set(safetensors.torch.load_file(run / "model.safetensors")) == set(
        load_run(run).captioner.state_dict()
    )
