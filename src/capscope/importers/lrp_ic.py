"""Weights of the original LRP captioning program (Sun et al. 2022): both ways, all captioners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.models import build
from capscope.models.captioner import Captioner

CNN_PREFIX = "img_encoder.encoder."
PROJECTED = "projection.weight"
LINEAR = ("weight", "bias")
CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Layout:
    """Where the original keeps the parameters of a captioner.

    Attributes
    ----------
    plain : dict
        Our parameter names, and the original's of the same shape (but for the projection, which
        is a 1x1 convolution there in the grid variant).
    stacked : dict
        Parameters that hold two of the original's, one below the other (LSTM gates, sentinel
        gate).
    config : callable
        Constructor arguments from the shapes of the original tensors.
    """

    plain: Mapping[str, str]
    stacked: Mapping[str, tuple[str, str]]
    config: Callable[[Mapping[str, Tensor]], dict[str, Any]]


def _pairs(ours: str, theirs: str, parts: tuple[str, ...] = LINEAR) -> dict[str, str]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in parts}


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    vocabulary_size, embedding = state["embedding.weight"].shape
    hidden, feature_size = state["img_projector.weight"].shape[:2]
    return {
        "vocabulary_size": vocabulary_size,
        "feature_size": feature_size,
        "embedding": embedding,
        "hidden": hidden,
        "parity": True,
    }


def _with_adaptive_attention(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        **_sizes(state),
        "attention": state["AdaAttention.W_v_proj.weight"].shape[0],
        "global_from": "features" if is_grid(state) else "projected",
    }


_SHARED = {
    **_pairs("projection", "img_projector"),
    "embedding.weight": "embedding.weight",
    **_pairs("words", "fc"),
}
_ADAPTIVE = {
    **_SHARED,
    **_pairs("global_projection", "global_img_feature_proj"),
    **_pairs("attention.visual", "AdaAttention.W_v_proj"),
    **_pairs("attention.sentinel", "AdaAttention.W_s_proj"),
    "attention.query.weight": "AdaAttention.W_g_proj.weight",
    "attention.score.weight": "AdaAttention.w_h.weight",
}


def _with_sentinel(ours: str) -> dict[str, tuple[str, str]]:
    gates = zip(CELL, ("x_gate.weight", "h_gate.weight", "x_gate.bias", "h_gate.bias"), strict=True)
    return {
        f"{ours}.{part}": (f"AdaLSTM.lstm_cell.{part}", f"AdaLSTM.{gate}") for part, gate in gates
    }


LAYOUTS = {
    "adaptive": Layout(_ADAPTIVE, _with_sentinel("lstm"), _with_adaptive_attention),
    "aoa": Layout(
        {
            **_SHARED,
            **_pairs("lstm", "LanguageLSTM", CELL),
            **_pairs("attention.key", "decoder_k_proj"),
            **_pairs("attention.value", "decoder_v_proj"),
            **_pairs("attention.query", "decoder_multihead_attention.q_proj"),
            **_pairs("gate", "decoder_aoa_linear_gate"),
            **_pairs("linear", "decoder_aoa_linear"),
        },
        {},
        _sizes,
    ),
    "gridtd": Layout(
        {**_ADAPTIVE, **_pairs("language_lstm", "LanguageLSTM", CELL)},
        _with_sentinel("attention_lstm"),
        _with_adaptive_attention,
    ),
}
"""The captioners of the original program by our names."""


def is_grid(state: Mapping[str, Tensor]) -> bool:
    """Return whether an original state dict is of the grid variant (1x1 convolution)."""
    return state["img_projector.weight"].dim() == 4


def names(layout: Layout) -> list[str]:
    """Return the original's tensor names of a captioner, without the image network."""
    return [*layout.plain.values(), *(name for pair in layout.stacked.values() for name in pair)]


def config_of(name: str, state: Mapping[str, Tensor], **options: Any) -> dict[str, Any]:
    """Return a captioner's constructor arguments: those that the shapes tell, and `options`."""
    return {**LAYOUTS[name].config(state), **options}


def from_original(
    name: str, state: Mapping[str, Tensor], **options: Any
) -> tuple[Captioner, dict[str, Tensor]]:
    """Build a captioner (grid or region variant) from an original state dict.

    Parameters
    ----------
    name : str
        A key of `LAYOUTS`.
    state : mapping
        Original tensors by their names.
    options
        Constructor arguments that no shape tells, such as the ``heads`` of AoA.

    Returns
    -------
    captioner : Captioner
        With the published behaviour (`parity`).
    network : dict
        State of the image network (empty for regions), keys as in torchvision's ``features``.

    Raises
    ------
    CapscopeError
        Naming a tensor that is missing, unknown or of another shape, what was expected and what
        was found.
    """
    layout = LAYOUTS[name]
    network = {
        key.removeprefix(CNN_PREFIX): tensor
        for key, tensor in state.items()
        if key.startswith(CNN_PREFIX)
    }
    decoder = {key: tensor for key, tensor in state.items() if not key.startswith(CNN_PREFIX)}
    for key in names(layout):
        if key not in decoder:
            raise CapscopeError(
                f"no checkpoint of {name}: it has no tensor {key!r}{_guess(decoder)}"
            )
    for key in decoder:
        if key not in names(layout):
            raise CapscopeError(
                f"no checkpoint of {name}: it has a tensor {key!r} besides{_guess(decoder)}"
            )
    for key in ("embedding.weight", "img_projector.weight", "AdaAttention.W_v_proj.weight"):
        if key in decoder and decoder[key].dim() not in (2, 4):
            found = tuple(decoder[key].shape)
            raise CapscopeError(f"tensor {key!r} has shape {found}, expected a matrix")
    captioner = build(name, **config_of(name, decoder, **options))
    expected = to_original(name, captioner.state_dict(), grid=is_grid(decoder))
    for key, tensor in expected.items():
        if decoder[key].shape != tensor.shape:
            raise CapscopeError(
                f"tensor {key!r} has shape {tuple(decoder[key].shape)}, expected "
                f"{tuple(tensor.shape)} beside the other tensors of the checkpoint"
            )
        if not bool(decoder[key].isfinite().all()):
            raise CapscopeError(f"tensor {key!r} holds values that are not finite")
    loaded = {ours: decoder[theirs] for ours, theirs in layout.plain.items()}
    loaded[PROJECTED] = loaded[PROJECTED].flatten(1)
    for ours, theirs in layout.stacked.items():
        loaded[ours] = torch.cat([decoder[key] for key in theirs])
    captioner.load_state_dict(loaded)
    return captioner, network


def _guess(state: Mapping[str, Tensor]) -> str:
    """Say of which captioner a state dict looks like."""
    fitting = [name for name, layout in LAYOUTS.items() if set(names(layout)) == set(state)]
    return f"; its tensors are those of {fitting[0]}" if fitting else ""


def to_original(name: str, tensors: Mapping[str, Tensor], *, grid: bool) -> dict[str, Tensor]:
    """Return the weights of a captioner under the original's names and in its shapes.

    Parameters
    ----------
    name : str
        A key of `LAYOUTS`.
    tensors : mapping
        Its state dict, or anything of the same names and shapes, such as gradients.
    grid : bool
        Whether the projection is written as a 1x1 convolution.
    """
    layout = LAYOUTS[name]
    found = {theirs: tensors[ours] for ours, theirs in layout.plain.items()}
    if grid:
        found["img_projector.weight"] = found["img_projector.weight"][:, :, None, None]
    for ours, (first, second) in layout.stacked.items():
        rows = tensors[ours].shape[0] // 5  # four gates and that of the sentinel
        found[first], found[second] = torch.split(tensors[ours], [4 * rows, rows])
    return found
