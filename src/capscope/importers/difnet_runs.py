"""Checkpoints of the original DIFNet as runs, and runs as its checkpoints.

The original saves a state dict with the state of its training (``<name>_best.pth``), and its words
once, as a pickle (``vocab.pkl``, see `difnet_vocabulary`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import atomic_path
from capscope.importers.checkpoints import about, state_of, write_imported
from capscope.importers.difnet import MODES, config_of, from_original, mode_of, to_original
from capscope.importers.difnet_vocabulary import (
    by_count,
    published,
    read_vocabulary,
    write_vocabulary,
)
from capscope.models.base import BaseTransformer
from capscope.models.checkpoint import load_run
from capscope.tensors import read_foreign

BY_WORD = ("decoder.word_emb.weight", "decoder.fc.weight")
"""Tensors with a row a word."""
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
        store_dir=store_dir,
        epoch=_number(facts.get("epoch")),
        validation_cider=_number(facts.get("best_cider")),
    )


def export_run(
    run_dir: Path,
    checkpoint: Path,
    mode: str,
    vocabulary: Path | None = None,
    counts: Mapping[str, int] = {},
) -> None:
    """Write a run as a checkpoint of the original, for one of its modes.

    Word ids become the original's: special words first, then the others by falling count; in the
    order of the run where there are no counts.

    Parameters
    ----------
    run_dir, checkpoint : Path
    mode : str
        base, base_lrp, difnet or difnet_lrp.
    vocabulary : Path, optional
        The ``vocab.pkl`` to write.
    counts : mapping
        How often each word occurs, rare ones too.

    Raises
    ------
    CapscopeError
        The captioner is not that of the mode, has layers that the original has not, or a
        vocabulary without one of the original's special words.
    """
    run = load_run(run_dir)
    model, words = run.captioner, run.vocabulary
    if mode not in MODES or MODES[mode].captioner != run.info["captioner"]:
        raise CapscopeError(
            f"{run_dir} is a run of {run.info['captioner']}, which the original's mode {mode!r} is "
            f"not; modes: {', '.join(MODES)}"
        )
    assert isinstance(model, BaseTransformer)
    if (getattr(model, "shared_layers", 1), getattr(model, "iterations", 2)) != (1, 2):
        raise CapscopeError(
            f"{run_dir}: the original applies one layer twice to both flows; this run has "
            "other shared_layers or iterations"
        )
    ids = _published_ids(words, counts, str(run_dir))
    state = to_original(model, mode)
    for name in BY_WORD:
        state[name] = state[name][ids]
    with atomic_path(checkpoint) as temporary:
        torch.save({"state_dict": {key: one.contiguous() for key, one in state.items()}}, temporary)
    if vocabulary is not None:
        ordinary = [words.words[i] for i in ids if i not in words.special_ids]
        write_vocabulary(vocabulary, published(ordinary), counts)


def _published_ids(words: Vocabulary, counts: Mapping[str, int], where: str) -> list[int]:
    """Return the ids of words in the order in which the original has them."""
    special = [words.unk, words.pad, words.start, words.end]
    if None in special or len(set(special)) < len(special):
        raise CapscopeError(
            f"{where}: the original needs words of their own for unknown words, padding, start and "
            f"end of a caption; this vocabulary has the ids {special} for them"
        )
    ordinary = by_count(list(words.ids), counts) if counts else list(words.ids)
    return [*(i for i in special if i is not None), *(words.ids[word] for word in ordinary)]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
