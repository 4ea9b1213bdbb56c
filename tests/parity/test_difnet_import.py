"""Checkpoints of DIFNet's program become runs, and go back."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from difnet_captioners import FOLDER, MODELS, captioner, features, load
from image_networks import Golden

from capscope.cli.exporting import command as exporting
from capscope.cli.importing import command as importing
from capscope.data.vocabulary import Vocabulary
from capscope.importers.checkpoints import write_imported
from capscope.importers.difnet import MODES, config_of, names
from capscope.importers.difnet_runs import export_run
from capscope.importers.difnet_vocabulary import SPECIAL, read_vocabulary
from capscope.models.checkpoint import load_run


def saved(golden: Golden, folder: Path, extra: int = 0) -> list[str]:
    """Write a checkpoint as the original does, and a vocabulary; return the command's options."""
    vocabulary = [*SPECIAL, *(f"word{i}" for i in range(golden.meta["V"] - len(SPECIAL) + extra))]
    torch.save(
        {
            "torch_rng_state": torch.get_rng_state(),
            "cuda_rng_state": None,
            "numpy_rng_state": np.random.get_state(),
            "random_rng_state": random.getstate(),
            "epoch": 3,
            "best_cider": 1.25,
            "state_dict": golden.weights("w/"),
        },
        folder / "c.pth",
    )
    (folder / "vocab.pkl").write_bytes(
        pickle.dumps({"itos": vocabulary, "freqs": dict.fromkeys(vocabulary, 5)})
    )
    options = ["--checkpoint", str(folder / "c.pth"), "--vocabulary", str(folder / "vocab.pkl")]
    return ["difnet", *options, "--heads", str(golden.meta["h"])]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_a_checkpoint_becomes_a_run_that_says_the_same_and_goes_back(
    name: str, tmp_path: Path
) -> None:
    golden, out = load(name), tmp_path / "run"
    result = CliRunner().invoke(importing, [*saved(golden, tmp_path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    run = load_run(out)
    hidden = run.captioner.hidden(features(golden), golden["in/caption"])
    log_probs = run.captioner.readout(hidden.values).log_softmax(-1)
    torch.testing.assert_close(log_probs, golden["out/logp"], rtol=0, atol=2e-5)
    assert (run.info["epoch"], run.info["validation_cider"]) == (3, 1.25)
    back = tmp_path / "back.pth"
    options = ["--run", str(out), "--checkpoint", str(back), "--mode", golden.meta["mode"]]
    options += ["--vocabulary", str(tmp_path / "back.pkl")]
    result = CliRunner().invoke(exporting, ["difnet", *options])
    assert result.exit_code == 0, result.output
    state = torch.load(back, weights_only=True)["state_dict"]
    assert set(state) == set(golden.weights("w/"))
    for theirs in names(run.captioner.state_dict()).values():
        assert torch.equal(state[theirs], golden[f"w/{theirs}"]), theirs
    assert read_vocabulary(tmp_path / "back.pkl").vocabulary == run.vocabulary


@pytest.mark.parametrize("name", MODELS[:1])
def test_words_in_another_order_go_back_in_the_originals(name: str, tmp_path: Path) -> None:
    golden, run = load(name), tmp_path / "run"
    model = captioner(golden)
    ordinary = [f"word{i:05}" for i in range(golden.meta["V"] - len(SPECIAL))]
    theirs = [*SPECIAL, *ordinary]
    ours = [theirs[i] for i in torch.randperm(len(theirs)).tolist()]
    order = [theirs.index(word) for word in ours]
    for layer in (model.embedding, model.words):
        layer.weight.data = layer.weight.data[order]
    unk, pad, start, end = map(ours.index, SPECIAL)
    config = {**config_of(golden.weights("w/")), "heads": golden.meta["h"], "parity": True}
    write_imported(
        run,
        model,
        name=MODES[golden.meta["mode"]].captioner,
        system="toy",
        config={**config, "padding": pad},
        vocabulary=Vocabulary(tuple(ours), pad=pad, start=start, end=end, unk=unk),
        features={},
        decoding={},
        checkpoint=FOLDER / name,
        inputs={},
    )
    counts = {word: 2 * len(ordinary) - i for i, word in enumerate(ordinary)} | {"rare": 1}
    export_run(run, tmp_path / "c.pth", golden.meta["mode"], tmp_path / "vocab.pkl", counts)
    back = read_vocabulary(tmp_path / "vocab.pkl")
    assert (list(back.vocabulary.words), back.counts) == (theirs, counts)
    state = torch.load(tmp_path / "c.pth", weights_only=True)["state_dict"]
    for key in names(model.state_dict()).values():
        assert torch.equal(state[key], golden[f"w/{key}"]), key


@pytest.mark.slow
def test_a_vocabulary_of_another_training_is_an_error(tmp_path: Path) -> None:
    golden = load(MODELS[0])
    options = [*saved(golden, tmp_path, extra=2), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(importing, options)
    assert result.exit_code != 0
    assert "not of one training" in str(result.exception) + result.output


@pytest.mark.slow
def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    golden = load(MODELS[0])
    options = [*saved(golden, tmp_path), "--out", str(tmp_path / "run")]
    loaded = torch.load(tmp_path / "c.pth", weights_only=False)
    del loaded["state_dict"]["decoder.fc.weight"]
    torch.save(loaded, tmp_path / "c.pth")
    result = CliRunner().invoke(importing, options)
    assert result.exit_code != 0
    assert "decoder.fc.weight" in str(result.exception) + result.output
