"""Weights of the original recurrent captioners (RNN, LSTM, attention LSTM), both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.tensors import fit

CELLS = {"rnn": "rnn_module", "lstm": "lstm_module", "attention_lstm": "attn_module"}
"""Our captioners, and where the original keeps the cell of each; it always has all three."""
GATES = {"rnn": 1, "lstm": 4, "attention_lstm": 4}
GRID = 16
"""Cells of the original's grid, 4 x 4."""
SHARED = {"embedding.weight": "model_emb.W_embed", "words.weight": "output_projection.weight"}
SHARED |= {"words.bias": "output_projection.bias"}


def from_original(
    name: str, state: Mapping[str, Tensor]
) -> tuple[Captioner, dict[str, Tensor] | None]:
    """Build a captioner with the original's weights.

    Parameters
    ----------
    name : {"rnn", "lstm", "attention_lstm"}
    state : mapping
        The original state dict; other cells, the classifier of the image network and its second
        copy (``model.backbone.*``) are left out.

    Returns
    -------
    captioner : Captioner
    network : dict or None
        Weights of the image network in torchvision's layout, if `state` has them.
    """
    tensors = {ours: _of(state, theirs) for ours, theirs in _names(name).items()}
    cell = CELLS[name]
    inputs = [_of(state, f"{cell}.Wx")]
    if name == "attention_lstm":
        inputs.append(_of(state, f"{cell}.Wattn"))
        tensors["projection.weight"] = tensors["projection.weight"].flatten(1)
    if len({weight.shape[1] for weight in inputs}) > 1:
        sizes = ", ".join(str(tuple(weight.shape)) for weight in inputs)
        raise CapscopeError(f"the inputs of {cell} have shapes that do not fit together: {sizes}")
    tensors["cell.weight_ih"] = _rows(torch.cat(inputs), GATES[name])
    tensors["cell.weight_hh"] = _rows(_of(state, f"{cell}.Wh"), GATES[name])
    bias = "cell.bias" if name == "rnn" else "cell.bias_ih"
    tensors[bias] = _rows(_of(state, f"{cell}.b").unsqueeze(0), GATES[name]).squeeze(1)
    vocabulary_size, embedding = tensors["embedding.weight"].shape
    config: dict[str, Any] = {
        "vocabulary_size": vocabulary_size,
        "embedding": embedding,
        "hidden": tensors["words.weight"].shape[1],
    }
    if name == "attention_lstm":
        config["feature_size"] = tensors["projection.weight"].shape[1]
    else:
        size = tensors["first.weight"].shape[1]
        if size % GRID:
            raise CapscopeError(
                f"feature_projection.weight has {size} inputs, not a multiple of the {GRID} cells "
                "that the original flattens"
            )
        config |= {"feature_size": size // GRID, "cells": GRID, "visual": "flatten"}
    captioner = build(name, **config)
    fit(captioner, tensors, "of the original, by our names,")
    prefix = "model.cnn."
    network = {
        key.removeprefix(prefix): tensor
        for key, tensor in state.items()
        if key.startswith(prefix) and not key.startswith(f"{prefix}fc.")
    }
    return captioner, network or None


def to_original(name: str, captioner: Captioner) -> dict[str, Tensor]:
    """Return a captioner's weights by the original's names; what other cells need is not there."""
    state = captioner.state_dict()
    tensors = {theirs: state[ours] for ours, theirs in _names(name).items()}
    cell, gates = CELLS[name], GATES[name]
    columns = _columns(state["cell.weight_ih"], gates)
    if name == "attention_lstm":
        tensors["conv1.weight"] = tensors["conv1.weight"][:, :, None, None]
        size = state["embedding.weight"].shape[1]
        columns, tensors[f"{cell}.Wattn"] = columns[:size], columns[size:]
    tensors[f"{cell}.Wx"] = columns
    tensors[f"{cell}.Wh"] = _columns(state["cell.weight_hh"], gates)
    bias = state["cell.bias" if name == "rnn" else "cell.bias_ih"]
    tensors[f"{cell}.b"] = _columns(bias.unsqueeze(1), gates).squeeze(0)
    return tensors


def _names(name: str) -> dict[str, str]:
    """Return the parameters that have the original's shape but for trailing ones."""
    if name not in CELLS:
        raise CapscopeError(f"unknown captioner {name!r}; there are: {', '.join(CELLS)}")
    ours, theirs = (
        ("projection", "conv1") if name == "attention_lstm" else ("first", "feature_projection")
    )
    return SHARED | {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def _of(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise CapscopeError(f"the checkpoint has no tensor {name!r}: it is of another captioner")
    tensor, kind = state[name], name.rpartition(".")[2]
    axes = 4 if name == "conv1.weight" else 1 if kind in ("bias", "b") else 2
    if tensor.dim() != axes or not tensor.is_floating_point():
        raise CapscopeError(
            f"tensor {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}, expected floating "
            f"point numbers with {axes} axes"
        )
    return tensor


def _rows(weight: Tensor, gates: int) -> Tensor:
    """Turn the original's columns i, f, o, g into rows i, f, g, o."""
    return _swapped(weight.T, gates)


def _columns(weight: Tensor, gates: int) -> Tensor:
    """Turn rows i, f, g, o into the original's columns i, f, o, g."""
    return _swapped(weight, gates).T


def _swapped(weight: Tensor, gates: int) -> Tensor:
    if gates == 1:
        return weight
    if len(weight) % gates:
        raise CapscopeError(f"a cell with {gates} gates cannot have {len(weight)} columns")
    i, f, third, fourth = weight.chunk(4)
    return torch.cat([i, f, fourth, third])
