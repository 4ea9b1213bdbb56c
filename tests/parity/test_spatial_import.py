"""Checkpoints of the spatial transformer's program become runs, and go back."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from image_networks import Golden
from spatial_captioners import MODELS, SHOW_TELL, load, regions, transformer

from capscope.errors import CapscopeError
from capscope.importers.spatial_runs import export_run, import_run
from capscope.models.checkpoint import load_run

HEADS = 4


def files(folder: Path, golden: Golden, **options: Any) -> tuple[Path, Path]:
    """Write a checkpoint and infos as the original does."""
    weights = golden.weights("w/")
    words = (weights.get("model.generator.proj.bias", weights.get("logit.bias"))).shape[0] - 1
    opt = {"caption_model": "transformer", "use_grid": True, "dropout": 0.5} | options
    infos = {
        "train": {"index": 3, "order": [1, 2]},
        "iter": 7,
        "epoch": 2,
        "best_val_score": 0.5,
        "opt": argparse.Namespace(**opt),
        "vocab": {str(i + 1): f"word{i}" for i in range(words)},
    }
    torch.save(weights, folder / "model.pt")
    (folder / "infos.pkl").write_bytes(pickle.dumps(infos))
    return folder / "model.pt", folder / "infos.pkl"


@pytest.mark.slow  # each reading of a foreign file starts a process
@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_becomes_a_run_that_says_the_same_and_goes_back(
    tmp_path: Path, name: str
) -> None:
    golden = load(name)
    config = golden.meta["config"]
    heads = golden["out/enc_attn0"].shape[1]
    checkpoint, infos = files(tmp_path, golden, heads=heads, **config)
    import_run(checkpoint, tmp_path / "run", infos=infos)
    run = load_run(tmp_path / "run")
    assert run.vocabulary.end == 0
    features, labels = regions(golden), golden["in/labels"][:, :-1]
    expected = transformer(golden).hidden(features, labels).values
    assert torch.equal(run.captioner.hidden(features, labels).values, expected)
    export_run(tmp_path / "run", tmp_path / "back.pt", tmp_path / "back.json")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    for key, tensor in back.items():
        assert torch.equal(tensor, golden[f"w/{key}"])
    import_run(
        tmp_path / "back.pt",
        tmp_path / "again",
        words=tmp_path / "back.json",
        heads=heads,
        activation=config.get("ff_activation", "relu").lower(),
    )
    again = load_run(tmp_path / "again")
    assert torch.equal(again.captioner.hidden(features, labels).values, expected)
    assert again.vocabulary == run.vocabulary


@pytest.mark.parametrize("name", SHOW_TELL)
@pytest.mark.slow
def test_the_baseline_becomes_a_run(tmp_path: Path, name: str) -> None:
    checkpoint, infos = files(tmp_path, load(name), caption_model="show_tell")
    import_run(checkpoint, tmp_path / "run", infos=infos)
    assert load_run(tmp_path / "run").info["captioner"] == "show_tell"


@pytest.mark.slow
def test_infos_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (exec, ("raise SystemExit",))

    checkpoint, infos = files(tmp_path, load(MODELS[0]), heads=HEADS)
    infos.write_bytes(pickle.dumps({"opt": Harmful()}))
    with pytest.raises(CapscopeError, match=r"infos\.pkl was not loaded.*exec"):
        import_run(checkpoint, tmp_path / "run", infos=infos)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    golden = load(MODELS[0])
    checkpoint, infos = files(tmp_path, golden, heads=HEADS)
    out = tmp_path / "run"
    with pytest.raises(CapscopeError, match="give the original's infos, or its label JSON"):
        import_run(checkpoint, out)
    (tmp_path / "few.json").write_text(json.dumps({"ix_to_word": {"1": "a"}, "images": []}))
    with pytest.raises(CapscopeError, match=r"knows \d+ words, but .*few.json has 2"):
        import_run(checkpoint, out, words=tmp_path / "few.json", heads=HEADS)
    (tmp_path / "gap.json").write_text(json.dumps({"ix_to_word": {"2": "a"}, "images": []}))
    with pytest.raises(CapscopeError, match="has no vocabulary"):
        import_run(checkpoint, out, words=tmp_path / "gap.json")
    weights = golden.weights("w/")
    for change, message in (
        ({"extra": torch.zeros(2)}, "hold 'extra'"),
        ({"model.decoder.norm.weight": torch.zeros(3)}, "has shape"),
        ({"model.decoder.norm.weight": None}, "have no 'model.decoder.norm.weight'"),
        (
            {"att_embed.0.weight": torch.full_like(weights["att_embed.0.weight"], torch.nan)},
            "finite",
        ),
        ({"model.generator.proj.weight": None}, "no tensor 'model.generator.proj.weight'"),
    ):
        changed = {k: v for k, v in {**weights, **change}.items() if v is not None}
        torch.save(changed, tmp_path / "changed.pt")
        with pytest.raises(CapscopeError, match=message):
            import_run(tmp_path / "changed.pt", out, infos=infos)
    with pytest.raises(CapscopeError, match="heads = 5 does not divide"):
        import_run(checkpoint, out, infos=infos, heads=5)
    assert not out.exists()
