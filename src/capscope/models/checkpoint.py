"""Trained captioners on disk: ``model.safetensors`` and ``model.json``, nothing that unpickles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.store import IDENTITY, FeatureStore
from capscope.files import read_json, read_manifest
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.models.ensemble import Ensemble
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
        """Refuse a feature store of another kind or size than the run was trained with.

        Of an imported run only some facts about its features may be known.
        """
        owner = f"the run in {self.folder}"
        known = self.info["features"]
        if self.info.get("imported"):
            known = {**store.attributes, **known}
        store.check_same_kind(known, owner)
        size = self.info["config"].get("feature_size", store.dim)
        if store.dim != size:
            raise CapscopeError(
                f"{store.path} holds features of {store.dim} numbers, but {owner} reads {size}"
            )


def name_of(folder: Path) -> str:
    """Return the system and the stage that a run is of, as ``gridtd/xe``, without its weights."""
    read_manifest(folder, "run")
    info = read_json(folder / INFO_FILE)
    return f"{info.get('system', '')}/{info.get('stage', '')}"


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


def load_ensemble(folders: Sequence[Path], weights: Sequence[float] | None = None) -> Run:
    """Load several runs as one that decodes with the mean of their probabilities.

    Parameters
    ----------
    folders : sequence of Path
        Runs with the same vocabulary and the same visual features; one alone is that run.
    weights : sequence of float, optional
        One for each run; see `capscope.models.ensemble`.

    Returns
    -------
    Run
        Folder, vocabulary and info are those of the first run.

    Raises
    ------
    CapscopeError
        Naming two runs of different vocabularies or features.
    """
    runs = [load_run(folder) for folder in folders]
    first = runs[0]
    for other in runs[1:]:
        pair = f"{first.folder} and {other.folder}"
        if other.vocabulary.sha256 != first.vocabulary.sha256:
            raise CapscopeError(
                f"{pair} have different vocabularies ({len(first.vocabulary)} and "
                f"{len(other.vocabulary)} words): an ensemble needs one; train both on the same"
            )
        for name in IDENTITY:
            ours, theirs = (run.info["features"].get(name) for run in (first, other))
            if ours != theirs:
                raise CapscopeError(
                    f"{pair} have different visual features ({name}: {ours!r} and {theirs!r}): "
                    "an ensemble needs the same"
                )
    if len(runs) == 1 and weights is None:
        return first
    ensemble = Ensemble([run.captioner for run in runs], weights)
    return Run(first.folder, ensemble.eval(), first.vocabulary, first.info)
