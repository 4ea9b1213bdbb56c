"""Weights of the original DIFNet, both ways, by the names of its four modes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.tensors import fit


class Mode(NamedTuple):
    """What one of the published modes is here."""

    captioner: str
    dead: str | None
    """Pattern of the tensors that the published program keeps and never uses."""


_FLOW_NORMS = r"encoder\.layers\.\d+\.(lnorm1|pwff\.layer_norm1)\."
MODES = {
    "base": Mode("base", None),
    "base_lrp": Mode("base", None),
    "difnet": Mode(
        "difnet",
        rf"({_FLOW_NORMS}|.*\.(mhatt|self_att|enc_att)\.layer_norm1\.|decoder\.layers\.\d+\.pwff\.layer_norm1\.).*",
    ),
    "difnet_lrp": Mode("difnet", rf"{_FLOW_NORMS}.*"),
}
"""The published modes; those with LRP are the same captioners, of which LRP asks nothing more."""
BUFFERS = re.compile(
    r"decoder\.(running_mask_self_attention|running_seq|layers\.\d+\.self_att\.running_\w+)"
)
"""Tensors that are no weights: caches of decoding."""
LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
POSITIONS = "decoder.pos_emb.weight"


def mode_of(state: Mapping[str, Tensor]) -> str:
    """Return the published mode that a state dict is of: base, difnet or difnet_lrp."""
    if "embed_pixel.1.weight" not in state:
        return "base"
    return "difnet" if "encoder.layers.0.mhatt.layer_norm1.weight" in state else "difnet_lrp"


def from_original(
    state: Mapping[str, Tensor], where: str = "of the checkpoint", **options: Any
) -> Captioner:
    """Build a captioner from an original state dict; its mode shows in the names.

    Parameters
    ----------
    state : mapping
        Original tensors by their names (``state_dict`` of a checkpoint).
    where : str
        Names the checkpoint in errors.
    options
        Constructor arguments that no shape tells: heads, dropout, padding, parity, and
        shared_layers and iterations of difnet.

    Raises
    ------
    CapscopeError
        Naming a tensor that is missing, unknown, of another shape, or not finite.
    """
    mode = MODES[mode_of(state)]
    weights = {key: value for key, value in state.items() if not BUFFERS.fullmatch(key)}
    config = config_of(weights, where)
    captioner = build(mode.captioner, **{"padding": 1, **config, **options})
    renamed = names(captioner.state_dict())
    missing = [theirs for theirs in renamed.values() if theirs not in weights]
    if missing:
        raise CapscopeError(
            f"weights {where} have no {missing[0]!r}, which {mode.captioner} needs "
            f"({len(missing)} such tensors)"
        )
    unknown = sorted(
        key
        for key in set(weights) - set(renamed.values())
        if mode.dead is None or not re.fullmatch(mode.dead, key)
    )
    if unknown:
        raise CapscopeError(
            f"weights {where} hold {unknown[0]!r}, which {mode.captioner} with "
            f"{config['layers']} layers has not ({len(unknown)} such tensors)"
        )
    fit(captioner, {ours: weights[theirs] for ours, theirs in renamed.items()}, where)
    return captioner


def to_original(captioner: Captioner, mode: str) -> dict[str, Tensor]:
    """Return the weights of a captioner under the original's names, complete for a `mode`.

    What the published mode keeps and never uses is filled as new normalisations are; buffers of
    decoding are empty.
    """
    if mode not in MODES:
        raise CapscopeError(f"unknown mode {mode!r}; there are: {', '.join(MODES)}")
    weights = captioner.state_dict()
    theirs = {name: weights[ours] for ours, name in names(weights).items()}
    size = weights["positions"].shape[1]
    layers = len({found[1] for found in map(LAYER.match, theirs) if found})
    for name in dead_names(mode, layers):
        if name not in theirs:
            theirs[name] = torch.ones(size) if name.endswith("weight") else torch.zeros(size)
    theirs["decoder.running_mask_self_attention"] = torch.zeros(1, 1, 0, dtype=torch.uint8)
    theirs["decoder.running_seq"] = torch.zeros(1, dtype=torch.long)
    for layer in range(layers):
        for kind in ("keys", "values"):
            theirs[f"decoder.layers.{layer}.self_att.running_{kind}"] = torch.zeros(0, size)
    return theirs


def dead_names(mode: str, layers: int) -> list[str]:
    """Return the normalisations of second flows that a published mode has, used or not."""
    if MODES[mode].captioner == "base":
        return []
    kinds = ["encoder.layers.{}.lnorm1", "encoder.layers.{}.pwff.layer_norm1"]
    if mode == "difnet":
        kinds += [
            "encoder.layers.{}.mhatt.layer_norm1",
            "decoder.layers.{}.self_att.layer_norm1",
            "decoder.layers.{}.enc_att.layer_norm1",
            "decoder.layers.{}.pwff.layer_norm1",
        ]
    return [
        f"{kind.format(layer)}.{part}"
        for kind in kinds
        for layer in range(layers)
        for part in ("weight", "bias")
    ]


def config_of(state: Mapping[str, Tensor], where: str = "of the checkpoint") -> dict[str, Any]:
    """Return the constructor arguments that the shapes of an original state dict tell."""
    hidden, feature_size = _shape(state, "embed_image.0.weight", where)
    layers = {int(found[1]) for found in map(LAYER.match, state) if found}
    config = {
        "vocabulary_size": _shape(state, "decoder.word_emb.weight", where)[0],
        "feature_size": feature_size,
        "hidden": hidden,
        "feed_forward": _shape(state, "encoder.layers.0.pwff.fc1.weight", where)[0],
        "layers": max(layers) + 1,
        "longest": _shape(state, POSITIONS, where)[0] - 1,
    }
    if "embed_pixel.1.weight" in state:
        config["segment_size"] = _shape(state, "embed_pixel.1.weight", where)[1]
    return config


def _shape(state: Mapping[str, Tensor], key: str, where: str) -> tuple[int, ...]:
    if key not in state:
        raise CapscopeError(
            f"weights {where} have no {key!r}: they are of another captioner, or program"
        )
    shape = tuple(state[key].shape)
    if len(shape) != 2:
        raise CapscopeError(f"tensor {key!r} {where} has shape {shape}, expected 2 axes")
    return shape


def names(ours: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """Return the original's name of each of our parameters."""
    found = {}
    for key in ours:
        theirs = key
        for pattern, replacement in NAMES:
            theirs = re.sub(pattern, replacement, theirs)
        found[key] = theirs
    return found


NAMES: tuple[tuple[str, str], ...] = (
    (r"^image\.linear\.", "embed_image.0."),
    (r"^image\.norm\.", "embed_image.3."),
    (r"^segments\.linear\.", "embed_pixel.1."),
    (r"^segments\.norm\.", "embed_pixel.4."),
    (r"^positions$", POSITIONS),
    (r"^embedding\.", "decoder.word_emb."),
    (r"^words\.", "decoder.fc."),
    (r"\.(attend|own|cross)\.norm\.", r".\1.layer_norm."),
    (r"\.(attend|own|cross)\.attention\.(q|k|v|o)\w+\.", r".\1.attention.fc_\2."),
    (r"\.attend\.", ".mhatt."),
    (r"\.own\.", ".self_att."),
    (r"\.cross\.", ".enc_att."),
    (r"\.feed_forward\.inner\.", ".pwff.fc1."),
    (r"\.feed_forward\.outer\.", ".pwff.fc2."),
    (r"\.residual_norms\.0\.", ".lnorm."),
    (r"\.residual_norms\.1\.", ".lnorm1."),
    (r"\.output_norms\.0\.", ".pwff.layer_norm."),
    (r"\.output_norms\.1\.", ".pwff.layer_norm1."),
    (r"\.norms\.0\.", ".lnorm1."),
    (r"\.norms\.1\.", ".lnorm2."),
    (r"\.norms\.2\.", ".pwff.layer_norm."),
    (r"^(encoder|decoder)\.(\d+)\.", r"\1.layers.\2."),
)
"""Patterns of our names, and what takes their place in the original's."""
