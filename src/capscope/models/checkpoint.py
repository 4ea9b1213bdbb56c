"""Trained captioners on disk: ``model.safetensors`` and ``model.json``, nothing that unpickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import atomic_path, read_json, read_manifest
from capscope.models import build
from capscope.models.captioner import Captioner

MODEL_FILE = "model.safetensors"
INFO_FILE = "model.json"


@dataclass(frozen=True)
class Run:
    """A trained captioner with all that it needs to speak.

    Attributes
    ----------
    folder : Path
    captioner : Captioner
        In evaluation mode.
    vocabulary : Vocabulary
    info : dict
        Content of ``model.json``: system, stage, seed, data set, features, decoding, ...
    """

    folder: Path
    captioner: Captioner
    vocabulary: Vocabulary
    info: dict[str, Any]

    def check_features(self, store: FeatureStore) -> None:
        """Refuse a feature store of another kind than the run was trained with."""
        store.check_same_kind(self.info["features"], f"the run in {self.folder}")


def load_run(folder: Path) -> Run:
    """Load what ``capscope train`` made.

    Raises
    ------
    CapscopeError
        Naming the file, and what is wrong: not a finished run, a tensor that is missing or has
        another shape, a vocabulary that does not have the recorded hash.
    """
    read_manifest(folder, "run")
    path = folder / INFO_FILE
    info = read_json(path)
    needed = {"captioner", "config", "vocabulary", "vocabulary_sha256", "features", "decoding"}
    missing = needed - set(info) if isinstance(info, dict) else needed
    if missing:
        raise CapscopeError(f"{path} does not describe a run: no {', '.join(sorted(missing))}")
    vocabulary = Vocabulary.from_json(info["vocabulary"], str(path))
    if vocabulary.sha256 != info["vocabulary_sha256"]:
        raise CapscopeError(
            f"{path}: the vocabulary has the hash {vocabulary.sha256[:12]}, recorded is "
            f"{str(info['vocabulary_sha256'])[:12]}; the file was changed, train the run again"
        )
    captioner = build(info["captioner"], **info["config"])
    load_weights(captioner, read_tensors(folder / MODEL_FILE), str(folder / MODEL_FILE))
    return Run(folder, captioner.eval(), vocabulary, info)


def load_weights(captioner: Captioner, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a captioner; every name and shape must fit."""
    expected = captioner.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise CapscopeError(f"{where} has no tensor {name!r}: it is of another captioner")
        found = tuple(tensors[name].shape)
        if found != tuple(tensor.shape):
            raise CapscopeError(
                f"{where}: tensor {name!r} has shape {found}, expected {tuple(tensor.shape)}"
            )
    for name in tensors:
        if name not in expected:
            raise CapscopeError(f"{where}: unexpected tensor {name!r}: it is of another captioner")
    captioner.load_state_dict(dict(tensors))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; one that is cut short or damaged is a `CapscopeError`."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise CapscopeError(f"{path} does not exist") from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise CapscopeError(f"{path} is not a valid safetensors file: {error}") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, atomically; the same tensors give the same bytes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(whole, dict(metadata) if metadata else None)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
