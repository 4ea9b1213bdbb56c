"""Checkpoints of the original DIFNet as runs, and runs as its checkpoints.

The original saves a state dict with the state of its training (``<name>_best.pth``), and its words
once, as a pickle (``vocab.pkl``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import (
    atomic_path,
)
from capscope.importers.checkpoints import about, state_of, write_imported
from capscope.importers.difnet import MODES, config_of, from_original, mode_of, to_original
from capscope.importers.difnet_vocabulary import SPECIAL, read_vocabulary
from capscope.models.base import BaseTransformer
from capscope.models.checkpoint import load_run
from capscope.tensors import read_foreign

DECODING = {"method": "beam", "beam": 5, "max_length": 20, "batch_size": 32}


def import_run(
    checkpoint: Path, vocabulary: Path, out: Path, *, heads: int = 8, store_dir: Path | None = None
) -> None:
    """Turn an original checkpoint into a run folder.

    Parameters
    ----------
    checkpoint : Path
        PyTorch file with a ``state_dict``, of any of the four modes.
    vocabulary : Path
        The ``vocab.pkl``, which is read without unpickling it.
    out : Path
        The run folder.
    heads : int
        Which no tensor tells.
    store_dir : Path, optional
        Features that the captioner is to read; they are checked, and recorded.

    Raises
    ------
    CapscopeError
        Naming the file, the tensor, what was expected and what was found.
    """
    words, loaded = read_vocabulary(vocabulary).vocabulary, read_foreign(checkpoint)
    with about(checkpoint):
        state = state_of(loaded)
        chosen: dict[str, Any] = {"heads": heads, "padding": words.pad, "parity": True}
        model = from_original(state, **chosen)
        name = MODES[mode_of(state)].captioner
        config = {**config_of(state), **chosen}
        if model.vocabulary_size != len(words):
            raise CapscopeError(
                f"the captioner knows {model.vocabulary_size} words, but {vocabulary} has "
                f"{len(words)}: they are not of one training"
            )
        described: dict[str, Any] = {"kind": "grid", "dim": config["feature_size"]}
        if store_dir is not None:
            store = FeatureStore.open(store_dir)
            expected = {"numbers of each cell": (config["feature_size"], store.dim)}
            if name == "difnet":
                expected["classes of segments"] = (config["segment_size"], store.segments or 0)
            for what, (needed, found) in expected.items():
                if needed != found:
                    raise CapscopeError(
                        f"the captioner reads {needed} {what}, but {store.path} has {found}"
                    )
            described = dict(store.attributes)
    facts = loaded if isinstance(loaded, dict) else {}
    write_imported(
        out,
        model,
        name=name,
        system=f"difnet {mode_of(state)}",
        config=config,
        vocabulary=words,
        features=described,
        decoding=DECODING,
        checkpoint=checkpoint,
        inputs={"vocabulary": vocabulary},
        epoch=_number(facts.get("epoch")),
        validation_cider=_number(facts.get("best_cider")),
    )


def export_run(run_dir: Path, checkpoint: Path, mode: str) -> None:
    """Write a run as a checkpoint of the original, for one of its modes.

    Raises
    ------
    CapscopeError
        The captioner is not that of the mode, has layers that the original has not, or a
        vocabulary whose special words have other ids than the original's.
    """
    run = load_run(run_dir)
    model, words = run.captioner, run.vocabulary
    if mode not in MODES or MODES[mode].captioner != run.info["captioner"]:
        raise CapscopeError(
            f"{run_dir} is a run of {run.info['captioner']}, which the original's mode {mode!r} is "
            f"not; modes: {', '.join(MODES)}"
        )
    assert isinstance(model, BaseTransformer)
    ids = (words.unk, words.pad, words.start, words.end)
    if ids != tuple(range(len(SPECIAL))):
        raise CapscopeError(
            f"{run_dir}: the original needs the ids 0 to 3 for {', '.join(SPECIAL)}; this "
            f"vocabulary has {ids} for them"
        )
    if (getattr(model, "shared_layers", 1), getattr(model, "iterations", 2)) != (1, 2):
        raise CapscopeError(
            f"{run_dir}: the original applies one layer twice to both flows; this run has "
            "other shared_layers or iterations"
        )
    state = {key: tensor.contiguous() for key, tensor in to_original(model, mode).items()}
    with atomic_path(checkpoint) as temporary:
        torch.save({"state_dict": state}, temporary)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
