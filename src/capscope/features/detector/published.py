"""Published weights of the bottom-up detector, as detectron2 keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.detector.inputs import Preparation
from capscope.features.detector.network import BottomUpNetwork, Dimensions
from capscope.files import sha256_of
from capscope.tensors import read_foreign

WHERE_FROM = (
    "The Visual Genome weights (faster_rcnn_from_caffe_attr.pkl, 262 MB, made for 36 boxes, or "
    "..._attr_original.pkl, for 10 to 100) have no address that works any more. Put a copy "
    "anywhere and give its path; or set features.regions.network to coco, or import features that "
    "others extracted"
)
NOT_WEIGHTS = ("cell_anchors", "num_batches_tracked")
"""Parts of names of tensors that the network computes, or does without."""
DEPTHS = ((3, 4, 23), (3, 4, 6), (3, 8, 36))
"""Blocks of res2 to res4 in residual networks of 101, 50 and 152 layers."""


def read_published(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read the weights of a bottom-up detector under their published names.

    Parameters
    ----------
    path : Path
        A pickled dict of arrays as detectron2 writes it (``model``, ``__author__``, perhaps
        ``matching_heuristics``), a PyTorch checkpoint, or safetensors.
    sha256 : str, optional
        Of the file, which is refused if it is another.

    Returns
    -------
    dict
        Statistics of normalisation that the file leaves out are mean 0 and variance 1.
    """
    if not path.is_file():
        raise CapscopeError(f"weights {path} do not exist. {WHERE_FROM}")
    if sha256 is not None and sha256_of(path) != sha256.lower():
        raise CapscopeError(
            f"weights {path} have SHA-256 {sha256_of(path)}, not {sha256}: the file is another, or "
            "damaged"
        )
    content = read_foreign(path)
    if isinstance(content, Mapping) and "model" in content:
        model, matched = content["model"], bool(content.get("matching_heuristics"))
    else:
        model, matched = content, False
    weights = _tensors(model, path)
    if matched:
        weights = matched_names(weights, path)
    return _with_statistics(weights)


def _tensors(model: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(model, Mapping) or not all(isinstance(v, Tensor) for v in model.values()):
        raise CapscopeError(f"weights {path} are not a dict of names and tensors")
    return {
        str(name): tensor.float()
        for name, tensor in model.items()
        if not any(part in str(name) for part in NOT_WEIGHTS)
    }


def matched_names(weights: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Rename weights whose names are ends of the network's, as detectron2's heuristics do.

    A name of the network takes the weight that is equal to it, or its longest end; two names must
    not take the same one.
    """
    for blocks in DEPTHS:
        for attributes in (1, 0):
            found = {name: _end_of(name, weights) for name in _names(blocks, attributes)}
            taken = [own for own in found.values() if own is not None]
            statistics = [name for name, own in found.items() if own is None]
            complete = all(name.rsplit(".", 1)[-1].startswith("running_") for name in statistics)
            if complete and len(set(taken)) == len(taken):
                return {name: weights[own] for name, own in found.items() if own is not None}
    raise CapscopeError(f"weights {path}: their names are not those of a bottom-up detector")


def _end_of(name: str, weights: Mapping[str, Tensor]) -> str | None:
    parts = name.split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in weights), None)


def _names(blocks: tuple[int, int, int], attributes: int) -> list[str]:
    with torch.device("meta"):
        network = BottomUpNetwork(Dimensions(blocks=blocks, attributes=attributes), Preparation())
    return list(network.state_dict())


def _with_statistics(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    whole = dict(weights)
    for name, tensor in weights.items():
        if name.endswith(".norm.weight"):
            norm = name.removesuffix("weight")
            whole.setdefault(norm + "running_mean", torch.zeros_like(tensor))
            whole.setdefault(norm + "running_var", torch.ones_like(tensor))
    return whole
