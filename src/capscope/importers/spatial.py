"""Weights of the original spatial transformer and of its LSTM baseline, both ways."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from capscope.errors import CapscopeError
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.tensors import fit

CAPTIONERS = ("spatial", "show_tell")
"""The captioners of the original program, by our names."""
BUFFERS = re.compile(r"model\.(tgt_embed\.1\.pe|src_embed\.(rows|cols|pe1|pe2))")
"""Tensors that are no weights: tables of sinusoids and indices, which we compute."""
LAYER = re.compile(r"model\.encoder\.layers\.(\d+)\.")


def from_original(
    name: str, state: Mapping[str, Tensor], where: str = "of the checkpoint", **options: Any
) -> Captioner:
    """Build a captioner from an original state dict.

    Parameters
    ----------
    name : {"spatial", "show_tell"}
    state : mapping
        Original tensors by their names.
    where : str
        Names the checkpoint in errors.
    options
        Constructor arguments that no shape tells: heads, activation, dropout, grid_mode; and
        positions: fixed, which has no weights.

    Raises
    ------
    CapscopeError
        Naming a tensor that is missing, unknown, of another shape, or not finite.
    """
    if name not in CAPTIONERS:
        raise CapscopeError(f"unknown captioner {name!r}; there are: {', '.join(CAPTIONERS)}")
    weights = {key: value for key, value in state.items() if not BUFFERS.fullmatch(key)}
    captioner = build(name, **config_of(name, weights, **options))
    renamed = names(name, captioner.state_dict())
    unknown = sorted(set(weights) - set(renamed.values()))
    if unknown:
        raise CapscopeError(
            f"weights {where} hold {unknown[0]!r}, which {name} with "
            f"{_described(name, weights)} has not ({len(unknown)} such tensors)"
        )
    missing = [theirs for theirs in renamed.values() if theirs not in weights]
    if missing:
        raise CapscopeError(
            f"weights {where} have no {missing[0]!r}, which {name} with "
            f"{_described(name, weights)} needs ({len(missing)} such tensors)"
        )
    fit(captioner, {ours: weights[theirs] for ours, theirs in renamed.items()}, where)
    return captioner


def to_original(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a captioner, or gradients of them, under the original's names."""
    return {theirs: tensors[ours] for ours, theirs in names(name, tensors).items()}


def config_of(name: str, state: Mapping[str, Tensor], **options: Any) -> dict[str, Any]:
    """Return a captioner's constructor arguments: those that the shapes tell, and `options`."""
    found = _transformer(state) if name == "spatial" else _show_tell(state)
    return {**found, **options}


def _described(name: str, state: Mapping[str, Tensor]) -> str:
    """Return what the shapes of a checkpoint say, for errors."""
    config = config_of(name, state)
    return ", ".join(f"{key} {value}" for key, value in config.items())


def _shape(state: Mapping[str, Tensor], key: str, axes: int = 2) -> tuple[int, ...]:
    if key not in state:
        raise CapscopeError(
            f"no tensor {key!r} in the checkpoint: it is of another captioner, or program"
        )
    shape = tuple(state[key].shape)
    if len(shape) != axes:
        raise CapscopeError(f"tensor {key!r} has shape {shape}, expected {axes} axes")
    return shape


def _transformer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    hidden, feature_size = _shape(state, "att_embed.0.weight")
    first = "model.encoder.layers.0"
    layers = {int(found[1]) for found in map(LAYER.match, state) if found}
    config: dict[str, Any] = {
        "vocabulary_size": _shape(state, "model.generator.proj.weight")[0],
        "feature_size": feature_size,
        "hidden": hidden,
        "feed_forward": _shape(state, f"{first}.feed_forward.fc.0.weight")[0],
        "layers": max(layers) + 1,
        "positions": "none",
        "cross": "dot_product",
        "norm": "rms" if "model.encoder.norm.scale" in state else "layer",
    }
    if "model.decoder.layers.0.cross_attn.attention.embed.0.weight" in state:
        config["cross"] = "xlinear"
    place = "model.src_embed"
    if f"{place}.fc1.weight" in state:
        config |= {"positions": "gxg", "grid": _shape(state, f"{place}.fc1.weight")[1]}
    elif f"{place}.fc.0.weight" in state:
        config["positions"] = "box"
    elif f"{place}.fc.weight" in state:
        cells = _shape(state, f"{place}.fc.weight")[1]
        side = math.isqrt(cells)
        if side**2 != cells:
            raise CapscopeError(
                f"tensor '{place}.fc.weight' reads {cells} grid cells, which is no square number"
            )
        config |= {"positions": "g2", "grid": side}
    return config


def _show_tell(state: Mapping[str, Tensor]) -> dict[str, Any]:
    embedding, feature_size = _shape(state, "img_embed.weight")
    vocabulary_size, hidden = _shape(state, "logit.weight")
    gates = _shape(state, "rnn.weight_ih_l0")[0] // hidden
    layers = sum(key.startswith("rnn.weight_ih_l") for key in state)
    return {
        "vocabulary_size": vocabulary_size,
        "feature_size": feature_size,
        "embedding": embedding,
        "hidden": hidden,
        "layers": layers,
        "cell": "gru" if gates == 3 else "lstm",
    }


def names(name: str, ours: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """Return the original's name of each of our parameters."""
    rules = TRANSFORMER if name == "spatial" else SHOW_TELL
    found = {}
    for key in ours:
        theirs = key
        for pattern, replacement in rules:
            theirs = re.sub(pattern, replacement, theirs)
        found[key] = theirs
    return found


_ATTENTION = tuple(
    (rf"\.{kind}\.{ours}\.(weight|bias)$", rf".{theirs}.linears.{number}.\1")
    for kind, theirs in (("attention", "self_attn"), ("cross", "cross_attn"))
    for number, ours in enumerate(("query", "key", "value", "output"))
)
_XLINEAR = (
    *(
        (rf"\.cross\.{ours}\.{part}\.", rf".cross_attn.linears.{number}.{place}.")
        for number, ours in enumerate(("pair_query", "key", "value_query", "value"))
        for part, place in (("linear", 0), ("norm", 2))
    ),
    (r"\.cross\.pair\.", ".cross_attn.attention.embed.0."),
    (r"\.cross\.score\.", ".cross_attn.attention.spatial."),
    (r"\.cross\.gate\.", ".cross_attn.attention.squeeze.0."),
)
TRANSFORMER: tuple[tuple[str, str], ...] = (
    *_XLINEAR,
    *_ATTENTION,
    (r"\.norms\.(\d)\.", r".sublayer.\1.norm."),
    (r"\.feed_forward\.inner\.", ".feed_forward.fc.0."),
    (r"\.feed_forward\.outer\.", ".feed_forward.fc.3."),
    (r"^(encoder|decoder)_norm\.", r"model.\1.norm."),
    (r"^(encoder|decoder)\.(\d+)\.", r"model.\1.layers.\2."),
    (r"^projection\.", "att_embed.0."),
    (r"^positions\.row_layer\.", "model.src_embed.fc1."),
    (r"^positions\.column_layer\.", "model.src_embed.fc2."),
    (r"^positions\.own_layer\.", "model.src_embed.fc3."),
    (r"^positions\.cell_layer\.", "model.src_embed.fc."),
    (r"^positions\.box_inner\.", "model.src_embed.fc.0."),
    (r"^positions\.box_outer\.", "model.src_embed.fc.2."),
    (r"^embedding\.weight$", "model.tgt_embed.0.embedding.weight"),
    (r"^words\.", "model.generator.proj."),
)
"""Patterns of our names, and what takes their place in the original's."""
SHOW_TELL: tuple[tuple[str, str], ...] = (
    (r"^projection\.", "img_embed."),
    (r"^embedding\.", "embed."),
    (r"^words\.", "logit."),
    (r"^stack\.cells\.(\d+)\.(weight_[ih]h)$", r"rnn.\2_l\1"),
)
