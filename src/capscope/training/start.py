"""Weights that a fine-tuning starts from: those of another run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import MANIFEST, sha256_of
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import MODEL_FILE, load_run
from capscope.tensors import fit

TRAINING_ONLY = ("dropout",)
"""Keys of a captioner's configuration that a fine-tuning may change."""
REMEMBERED = ("system", "stage", "seed", "epoch", "validation_cider", "signature", "from")


def start_from(
    folder: Path,
    captioner: Captioner,
    *,
    name: str,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    store: FeatureStore,
) -> dict[str, Any]:
    """Put the weights of a finished run into `captioner`.

    Parameters
    ----------
    folder : Path
        The run: any that ``capscope train`` or an importer made.
    captioner : Captioner
    name, config : str, mapping
        What `captioner` is: it has to be what the run trained.
    vocabulary : Vocabulary
    store : FeatureStore

    Returns
    -------
    dict
        The history of the weights for ``model.json``: system, stage, seed, signature, and what
        that run started from itself.

    Raises
    ------
    CapscopeError
        Not a finished run, or one of another captioner, size, vocabulary or kind of features.
    """
    run = load_run(folder)
    if run.info["captioner"] != name:
        raise CapscopeError(
            f"{folder} is a run of the captioner {run.info['captioner']!r}, not {name!r}: a stage "
            "starts from a run of the same captioner"
        )
    if run.vocabulary.sha256 != vocabulary.sha256:
        raise CapscopeError(
            f"{folder} was trained with another vocabulary: start from a run of the same system, "
            "or give its vocabulary"
        )
    run.check_features(store)
    defaults = _defaults(captioner)
    ours, theirs = {**defaults, **config}, {**defaults, **run.info["config"]}
    for key in sorted({*ours, *theirs} - {*TRAINING_ONLY}):
        if ours.get(key) != theirs.get(key):
            raise CapscopeError(
                f"{folder} was trained with model.{key} = {theirs.get(key)!r}, the parameters say "
                f"{ours.get(key)!r}: make them agree, or start from another run"
            )
    fit(captioner, run.captioner.state_dict(), folder / MODEL_FILE)
    history = {key: run.info.get(key) for key in REMEMBERED}
    return {**history, "manifest_sha256": sha256_of(folder / MANIFEST)}


def _defaults(captioner: Captioner) -> dict[str, Any]:
    """Return the configuration that a captioner of this class has where none is given."""
    parameters = inspect.signature(type(captioner)).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not one.empty}
