"""Training through the image network: the same numbers as with features, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from tiny_data import tiny_params
from torch import nn

from capscope.cli.features import command as features_command
from capscope.data.annotations import Dataset, Image, karpathy_json, open_dataset
from capscope.data.captions import prepare_captions
from capscope.data.images import read_image
from capscope.decoding.captions import caption_images, decode_run
from capscope.errors import CapscopeError
from capscope.features.grid import GridExtractor
from capscope.features.small import SmallNetwork
from capscope.features.store import FeatureStore, create_store
from capscope.features.visual import Features
from capscope.files import read_json, write_json, write_manifest
from capscope.models import build
from capscope.models.checkpoint import load_run
from capscope.models.from_images import FromImages, pass_noise, split_weights
from capscope.tensors import read_tensors
from capscope.training.fine_tuning import ImageReader, with_network
from capscope.training.loop import Trainer
from capscope.training.run import train_run

SIZE = 16
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (30, 60, 220)}


def small_extractor() -> GridExtractor:
    torch.manual_seed(2)
    config = {"channels": [6, 8]}
    network = SmallNetwork(**config)
    return GridExtractor("small", network, SIZE, layer="last", scale=2.0, config=config)


def a_network() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, 2, 1), nn.ReLU()
    )


@pytest.fixture(scope="module")
def params() -> Any:
    params = tiny_params(learning_rate=0.03, epochs=20, patience=20, keep="last")
    model = {"embedding": 8, "hidden": 12, "visual": "mean"}
    system = {**params["systems"]["gridtd"], "captioner": "lstm", "model": model}
    system["xe"] = {**system["xe"], "encoder": "fine_tuned"}
    return {**params, "systems": {"lstm": system}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, params) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    entries = []
    (folder / "data" / "images").mkdir(parents=True)
    for number in range(30):
        name, colour = list(COLOURS.items())[number % 3]
        pixels = np.clip(generator.normal(colour, 25, (20, 24, 3)), 0, 255).astype(np.uint8)
        file = f"images/{number}.png"
        Pillow.fromarray(pixels).save(folder / "data" / file)
        split = ("train", "train", "train", "val", "test")[number // 3 % 5]
        words = ("a", name, "square")
        entries.append(Image(number, file, split, (" ".join(words),) * 2, (words,) * 2, 24, 20))
    dataset = Dataset("tiny", folder / "data", tuple(entries))
    write_json(folder / "data" / "dataset.json", karpathy_json(dataset))
    write_manifest(folder / "data", "data", params={})
    prepare_captions(folder / "vocabulary", folder / "data", params, "lstm")
    extractor, store = small_extractor(), folder / "features"
    store.mkdir()
    ids = [entry.id for entry in entries]
    shape = {"cells": 16, "dim": extractor.dim, "dtype": "float32"}
    with create_store(store, ids, **shape, attributes=extractor.spec()) as writer:
        images = [extractor.preprocess(read_image(dataset.path(entry))) for entry in entries]
        writer.append(extractor(torch.stack(images)))
    extractor.save(store)
    write_manifest(store, "features", params={})
    return {name: folder / name for name in ("data", "vocabulary", "features")}


def train(out: Path, folders, params) -> Path:
    arguments = [folders["data"], folders["vocabulary"], folders["features"], params]
    train_run(out, *arguments, system="lstm", stage="xe", seed=1)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory, folders, params) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "xe", folders, params)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_images_are_read_as_they_are_prepared_for_features(folders, params, tmp_path):
    dataset, extractor = open_dataset(folders["data"], params), small_extractor()
    reader = ImageReader(tmp_path / "images.npy", dataset, [7, 3, 11], SIZE)
    found = reader.read([11, 3])
    expected = [extractor.preprocess(read_image(dataset.path(dataset.by_id(i)))) for i in (11, 3)]
    assert torch.equal(found.cells, torch.stack(expected))
    assert found.cells.is_contiguous(memory_format=torch.channels_last)
    again = ImageReader(tmp_path / "images.npy", dataset, [3, 7, 11], SIZE)
    assert torch.equal(again.read([11, 3]).cells, found.cells)
    with pytest.raises(CapscopeError, match="image 4 was not prepared"):
        reader.read([4])
    with pytest.raises(CapscopeError, match="holds other images; delete"):
        ImageReader(tmp_path / "images.npy", dataset, [1, 2], SIZE)


@pytest.mark.parametrize("name", ["rnn", "lstm", "attention_lstm"])
def test_a_captioner_of_images_says_what_it_says_of_their_features(name):
    extractor = GridExtractor("toy", a_network(), SIZE, layer="4", scale=3.0, positions=4)
    sizes = {"vocabulary_size": 9, "feature_size": extractor.dim, "embedding": 4, "hidden": 6}
    captioner = build(name, **sizes)
    images, word_ids = torch.randn(3, 3, SIZE, SIZE), torch.randint(0, 9, (3, 4))
    seen = Features(extractor(images))
    expected = captioner.hidden(seen, word_ids)
    whole = FromImages(captioner, extractor).eval()
    found = whole.hidden(Features(images), word_ids)
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(whole.readout(found.values), captioner.readout(expected.values))
    memory = whole.encode(Features(images))
    for key, tensor in captioner.encode(seen).items():
        torch.testing.assert_close(memory[key], tensor)
    step = whole.step(word_ids[:, :1], whole.start(memory), memory)
    torch.testing.assert_close(
        step.log_probs[:, 0], captioner.readout(expected.values)[:, 0].log_softmax(-1)
    )
    latent = whole.project(Features(images))
    for key, tensor in whole.memory(latent, Features(images)).items():
        torch.testing.assert_close(tensor, memory[key])


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_batch_statistics_are_followed_only_if_asked_and_everything_learns(batch_norm):
    extractor = GridExtractor("toy", a_network(), SIZE, layer="4")
    sizes = {"vocabulary_size": 9, "feature_size": extractor.dim, "embedding": 4, "hidden": 6}
    whole = FromImages(build("lstm", **sizes), extractor, batch_norm).train()
    norm = extractor.network[1]
    before = norm.running_mean.clone()
    images, word_ids = torch.randn(5, 3, SIZE, SIZE), torch.randint(0, 9, (5, 4))
    values = whole.hidden(Features(images), word_ids).values
    whole.readout(values).logsumexp(-1).sum().backward()
    assert torch.equal(norm.running_mean, before) == (batch_norm == "frozen")
    assert all(parameter.grad is not None for parameter in whole.parameters())
    assert not whole.eval().extractor.network.training


def test_the_order_of_channels_in_memory_changes_nothing_but_rounding():
    sizes = {"vocabulary_size": 9, "feature_size": 5, "embedding": 4, "hidden": 6}
    images = torch.randn(5, 3, SIZE, SIZE, dtype=torch.float64)
    found = []
    for channels_last in (True, False):
        extractor = GridExtractor("toy", a_network(), SIZE, layer="4")
        whole = FromImages(build("rnn", **sizes), extractor, "train", channels_last)
        found.append(whole.double().train().look(Features(images)).cells)
        layout = next(extractor.network.parameters())
        assert layout.is_contiguous(memory_format=torch.channels_last) == channels_last
    torch.testing.assert_close(*found)


def test_a_pass_of_noise_moves_the_statistics_and_nothing_else():
    network, same = a_network().eval(), a_network()
    torch.manual_seed(9)
    pass_noise(network, SIZE)
    torch.manual_seed(9)
    same.train()(torch.randn(2, 3, SIZE, SIZE))
    assert not network.training
    assert int(network[1].num_batches_tracked) == 1
    for key, tensor in same.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor), key


def test_weights_are_split_into_those_of_captioner_and_network():
    extractor = small_extractor()
    sizes = {"vocabulary_size": 9, "feature_size": extractor.dim, "embedding": 4, "hidden": 6}
    captioner = build("rnn", **sizes)
    own, network = split_weights(FromImages(captioner, extractor).state_dict())
    assert set(own) == set(captioner.state_dict())
    assert set(network) == set(extractor.network.state_dict())


def test_a_fine_tuned_run_keeps_its_network_and_knows_its_features(run, folders):
    info, start = load_run(run).info, read_json(folders["features"] / "extractor.json")
    assert info["extractor"]["weights_sha256"] != start["weights_sha256"]
    assert info["features"]["weights_sha256"] == info["extractor"]["weights_sha256"]
    assert GridExtractor.load(run).spec() == info["extractor"]
    moved = read_tensors(run / "extractor.safetensors")
    for key, tensor in read_tensors(folders["features"] / "extractor.safetensors").items():
        assert (moved[key] - tensor).abs().max() > 1e-4, key
    with pytest.raises(CapscopeError, match="weights_sha256"):
        load_run(run).check_features(FeatureStore.open(folders["features"]))
    assert not (run / "state").exists()


def test_a_fine_tuned_run_decodes_features_of_its_own_network(run, folders, params, tmp_path):
    from click.testing import CliRunner

    write_json(tmp_path / "params.json", params)
    arguments = ["--params", tmp_path / "params.json", "--data", folders["data"]]
    arguments += ["--run", run, "--out", tmp_path / "features"]
    done = CliRunner().invoke(features_command, list(map(str, arguments)))
    assert done.exception is None, done.output
    store = FeatureStore.open(tmp_path / "features")
    assert store.attributes["scale"] == 2.0
    out = tmp_path / "test.json"
    decode_run(run, folders["data"], tmp_path / "features", params, split="test", out=out)
    said = read_json(out)
    assert len(said) == 6
    trained = load_run(run)
    whole = FromImages(trained.captioner, GridExtractor.load(run))
    ids = [one["image_id"] for one in said]
    dataset = open_dataset(folders["data"], params)
    reader = ImageReader(tmp_path / "images.npy", dataset, ids, SIZE)
    spoken = caption_images(whole, reader.read(ids), trained.vocabulary, params["decoding"])
    assert [list(one.word_ids) for one in spoken] == [one["word_ids"] for one in said]


@pytest.mark.slow
def test_a_killed_fine_tuning_ends_at_the_same_bytes(run, folders, params, tmp_path, monkeypatch):
    original = Trainer._step

    class Killed(BaseException):
        pass

    def dies(self, batch):
        if self.progress.step == 4:
            self._save()
            raise Killed
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", dies)
        with pytest.raises(Killed):
            train(tmp_path / "killed", folders, params)
    assert content(train(tmp_path / "killed", folders, params)) == content(run)


def test_what_has_no_network_cannot_be_fine_tuned(folders, tmp_path):
    captioner = build("rnn", vocabulary_size=9, feature_size=8, embedding=4, hidden=6)
    with pytest.raises(CapscopeError, match=r"encoder: fine_tuned needs the network"):
        with_network(captioner, tmp_path, {})
    assert with_network(captioner, folders["features"], {}).batch_norm == "frozen"
    extractor = small_extractor()
    extractor.image_size = None
    with pytest.raises(CapscopeError, match="image_size is native"):
        FromImages(captioner, extractor)
