"""The golden weights in the original layout: imported as runs, and exported back."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from image_networks import Golden
from original_captioners import KINDS, features_of, kind_of

from capscope.cli.exporting import command as export_command
from capscope.cli.importing import command as import_command
from capscope.features.grid import GridExtractor
from capscope.models.checkpoint import load_run

ABSOLUTE = 1e-5


def written(golden: Golden, folder: Path) -> tuple[Path, Path]:
    """Write a checkpoint and a word map as the original does, its optimiser included."""
    state = golden.weights("w.")
    optimiser = torch.optim.Adam([torch.nn.Parameter(t.clone()) for t in state.values()])
    content = {
        "epoch": 7,
        "epochs_since_improvement": 1,
        "bleu-4": 0.25,
        "cider": 1.5,
        "state_dict": state,
        "optimizer": optimiser,
    }
    torch.save(content, folder / "checkpoint.pth")
    (folder / "wordmap.json").write_text(json.dumps(golden.meta["word_map"]))
    return folder / "checkpoint.pth", folder / "wordmap.json"


def call(command: object, *arguments: object) -> None:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if done.exception:
        raise done.exception


def imported(golden: Golden, checkpoint: Path, wordmap: Path, out: Path) -> None:
    kind, dims = kind_of(golden), golden.meta["dims"]
    grid = not kind.endswith("_bu")
    arguments = ["--checkpoint", checkpoint, "--wordmap", wordmap, "--out", out]
    arguments += ["--captioner", kind.removesuffix("_bu"), "--heads", dims["heads"]]
    arguments += ["--features", "grid" if grid else "regions"]
    if grid:
        arguments += ["--image-size", dims["H"]]
    call(import_command, "lrp_ic", *arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_checkpoint_is_a_run_and_a_run_a_checkpoint(kind: str, tmp_path: Path) -> None:
    golden = Golden(f"lrp_ic/{kind}.npz")
    if len({golden.meta["dims"].get(side) for side in "HW"}) > 1:
        pytest.skip("images of this fixture are no squares, as runs take them")
    checkpoint, wordmap = written(golden, tmp_path)
    imported(golden, checkpoint, wordmap, tmp_path / "run")
    run = load_run(tmp_path / "run")
    features = features_of(golden)
    if not kind.endswith("_bu"):
        extractor = GridExtractor.load(tmp_path / "run")
        with torch.no_grad():
            cells = extractor(golden["x"])
        torch.testing.assert_close(cells, features.cells, rtol=0, atol=ABSOLUTE)
        features = features._replace(cells=cells)
    steps = golden["logits"].shape[1]
    with torch.no_grad():
        hidden = run.captioner.hidden(features, golden["caps"][:, :steps])
        logits = run.captioner.readout(hidden.values)
    torch.testing.assert_close(logits, golden["logits"], rtol=0, atol=ABSOLUTE)
    ordinary = {w: i for w, i in golden.meta["word_map"].items() if not w.startswith("<")}
    assert run.vocabulary.encode(list(ordinary)) == list(ordinary.values())
    assert run.info["epoch"] == 7
    assert run.info["validation_cider"] == 1.5

    back, words = tmp_path / "back.pth", tmp_path / "back.json"
    call(
        export_command,
        *("lrp_ic", "--run", tmp_path / "run", "--checkpoint", back, "--wordmap", words),
    )
    again = torch.load(back, weights_only=True)
    expected = golden.weights("w.")
    assert set(again["state_dict"]) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(again["state_dict"][name], tensor), name
    assert (again["epoch"], again["cider"]) == (7, 1.5)
    assert json.loads(words.read_text()) == golden.meta["word_map"]
