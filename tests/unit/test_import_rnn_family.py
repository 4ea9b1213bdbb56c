"""Importing state dicts of the recurrent captioners: what is refused, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.photograph import Photographer
from capscope.features.classifier import cut
from capscope.features.grid import GridExtractor
from capscope.features.visual import Features
from capscope.importers.rnn_family import CELLS, GATES
from capscope.importers.rnn_family_runs import import_run, read_words
from capscope.models.checkpoint import load_run
from capscope.tensors import write_tensors

WORDS = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "red", "dog"]
EMBEDDING, HIDDEN, CHANNELS = 5, 6, 400


def original(channels: int = CHANNELS, cells: int = 16) -> dict[str, Tensor]:
    """Return an untrained original: captioner with all three cells, and its image network."""
    torch.manual_seed(0)
    shapes = {
        "conv1.weight": (HIDDEN, channels, 1, 1),
        "conv1.bias": (HIDDEN,),
        "model_emb.W_embed": (len(WORDS), EMBEDDING),
        "output_projection.weight": (len(WORDS), HIDDEN),
        "output_projection.bias": (len(WORDS),),
        "feature_projection.weight": (HIDDEN, channels * cells),
        "feature_projection.bias": (HIDDEN,),
    }
    for name, cell in CELLS.items():
        rows = {"Wx": EMBEDDING, "Wh": HIDDEN}
        rows |= {"Wattn": HIDDEN} if name == "attention_lstm" else {}
        shapes |= {f"{cell}.{key}": (size, GATES[name] * HIDDEN) for key, size in rows.items()}
        shapes[f"{cell}.b"] = (GATES[name] * HIDDEN,)
    state = {name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}
    network = cut("regnet_x_400mf").state_dict()
    for key, value in network.items():
        drawn = torch.rand(value.shape) * 0.2
        state[f"model.cnn.{key}"] = drawn.to(value.dtype)
        state[f"model.backbone.{key}"] = state[f"model.cnn.{key}"]
    return state | {"model.cnn.fc.weight": torch.zeros(3, channels)}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return original()


def files(folder: Path, state: dict[str, Tensor], words: Any = None) -> dict[str, Path]:
    """Write a state dict and its word ids."""
    own = {key: value for key, value in state.items() if not key.startswith("model.backbone.")}
    write_tensors(folder / "c.safetensors", own)
    words = {word: i for i, word in enumerate(WORDS)} if words is None else words
    (folder / "words.json").write_text(json.dumps(words))
    return {"checkpoint": folder / "c.safetensors", "vocabulary": folder / "words.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_an_imported_run_captions_a_photograph(
    name: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    import_run(**files(tmp_path, state), out=tmp_path / "run", captioner=name)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    found = Photographer(tmp_path / "run", {"max_length": 4}).caption(tmp_path / "photo.png")
    assert set(found.words) <= set(WORDS[4:])
    run, extractor = load_run(tmp_path / "run"), GridExtractor.load(tmp_path / "run")
    assert (extractor.grid, extractor.dim, run.info["decoding"]["max_length"]) == ((4, 4), 400, 15)
    memory = run.captioner.encode(Features(torch.zeros(1, 16, 400)))
    assert memory["first"].shape == (1, 1, HIDDEN)


def test_a_state_dict_without_its_network_needs_features_from_elsewhere(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    alone = {key: value for key, value in state.items() if not key.startswith("model.")}
    alone["model_emb.W_embed"] = state["model_emb.W_embed"]
    import_run(**files(tmp_path, alone), out=tmp_path / "run", captioner="attention_lstm")
    assert load_run(tmp_path / "run").info["extractor"] is None


def changed(state: dict[str, Tensor], **tensors: Tensor | None) -> dict[str, Tensor]:
    given = {key.replace("__", "."): value for key, value in tensors.items()}
    found = {**state, **given}
    return {key: value for key, value in found.items() if value is not None}


BROKEN = {
    "no cell": ({"lstm_module__Wh": None}, "no tensor 'lstm_module.Wh': it is of another"),
    "axes": ({"output_projection__weight": torch.zeros(4)}, r"shape \(4,\), expected .* 2 axes"),
    "whole numbers": (
        {"output_projection__bias": torch.zeros(7, dtype=torch.long)},
        r"'output_projection.bias' is torch.int64",
    ),
    "another size": ({"lstm_module__Wh": torch.zeros(6, 28)}, "cell.weight_hh has shape"),
    "no four gates": ({"lstm_module__b": torch.zeros(23)}, "4 gates cannot have 23 columns"),
    "not finite": ({"output_projection__bias": torch.full((7,), torch.nan)}, "is not finite"),
    "flattened": (
        {"feature_projection__weight": torch.zeros(6, 6401)},
        "6401 inputs, not a multiple of the 16 cells",
    ),
    "channels": (
        {"feature_projection__weight": torch.zeros(6, 16 * 300)},
        "reads 300 channels, its image network has 400",
    ),
    "network": ({"model.cnn.stem.0.weight": None}, "missing stem.0.weight"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(
    kind: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors, message = BROKEN[kind]
    given = files(tmp_path, changed(state, **tensors))
    with pytest.raises(CapscopeError, match=message) as caught:
        import_run(**given, out=tmp_path / "run", captioner="lstm")
    assert "c.safetensors" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_inputs_of_the_attention_lstm_must_fit_together(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    given = files(tmp_path, changed(state, attn_module__Wattn=torch.zeros(6, 20)))
    with pytest.raises(CapscopeError, match=r"do not fit together: \(5, 24\), \(6, 20\)"):
        import_run(**given, out=tmp_path / "run", captioner="attention_lstm")


@pytest.mark.slow
def test_another_image_size_than_the_one_trained_with_is_refused(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    given = files(tmp_path, state)
    with pytest.raises(CapscopeError, match=r"flattens 16 cells, .* 224 pixels have 7 x 7"):
        import_run(**given, out=tmp_path / "run", captioner="rnn", image_size=224)
    import_run(**given, out=tmp_path / "run", captioner="attention_lstm", image_size=224)
    assert GridExtractor.load(tmp_path / "run").grid == (7, 7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([1, 2], "is no vocabulary"),
        ({"<NULL>": 0, "a": 2}, "is no vocabulary"),
        ({"<NULL>": 0, "<START>": 1, "<END>": 2}, "lacks <UNK>"),
        ({word: i for i, word in enumerate([*WORDS, "more"])}, "has 7 rows, expected 8"),
    ],
)
def test_word_ids_that_do_not_fit_are_refused(
    words: Any, message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(CapscopeError, match=message):
        import_run(**files(tmp_path, state, words), out=tmp_path / "run", captioner="rnn")


def test_word_ids_are_read_from_either_side_of_the_file(tmp_path: Path) -> None:
    ids = {word: i for i, word in enumerate(WORDS)}
    for number, content in enumerate([ids, {"token_to_idx": ids, "idx_to_token": WORDS}]):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content))
        found = read_words(path)
        assert found.words == tuple(WORDS)
        assert (found.pad, found.start, found.end, found.unk) == (0, 1, 2, 3)


@pytest.mark.slow
def test_word_ids_are_read_from_the_data_file_itself(tmp_path: Path) -> None:
    content = {
        f"{split}_{what}": value
        for split in ("train", "val")
        for what, value in (
            ("images", torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
            ("captions", torch.tensor([[1, 4, 2]])),
        )
    }
    ids = {word: i for i, word in enumerate(WORDS)}
    content["vocab"] = {"idx_to_token": WORDS, "token_to_idx": ids}
    torch.save(content, tmp_path / "coco.pt")
    assert read_words(tmp_path / "coco.pt").words == tuple(WORDS)


@pytest.mark.slow
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    given = files(tmp_path, state)

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": state, "more": Harmful()}, tmp_path / "harmful.pt")
    given["checkpoint"] = tmp_path / "harmful.pt"
    with pytest.raises(CapscopeError, match=r"harmful.pt was not loaded"):
        import_run(**given, out=tmp_path / "run", captioner="rnn")
    assert not (tmp_path / "ran").exists()
