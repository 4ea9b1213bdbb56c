"""Trained captioners on disk: ``model.safetensors`` and ``model.json``, nothing that unpickles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import read_json, read_manifest
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.tensors import fit, read_tensors

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
    fit(captioner, read_tensors(folder / MODEL_FILE), folder / MODEL_FILE)
    return Run(folder, captioner.eval(), vocabulary, info)
