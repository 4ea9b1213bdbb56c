"""Checkpoints of the original spatial transformer as runs, and runs as its checkpoints.

The original keeps a state dict (``model.pt``) and, beside it, a pickle with its options and words
(``infos.pkl``). A label JSON gives the words, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from capscope.data.labels import numbered_words, read_vocabulary
from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import (
    atomic_path,
    write_json,
)
from capscope.importers.checkpoints import about, state_of, write_imported
from capscope.importers.spatial import CAPTIONERS, config_of, from_original, to_original
from capscope.models.checkpoint import load_run
from capscope.tensors import read_foreign

DECODING = {"method": "beam", "beam": 2, "max_length": 16, "batch_size": 32}
NAMES = {"transformer": "spatial", "spatial_pe": "spatial", "show_tell": "show_tell"}
"""The original's names of captioners, the README's among them."""


def import_run(
    checkpoint: Path,
    out: Path,
    *,
    infos: Path | None = None,
    words: Path | None = None,
    captioner: str | None = None,
    heads: int | None = None,
    activation: str | None = None,
    positions: str | None = None,
    grid_mode: str = "box",
    store_dir: Path | None = None,
) -> None:
    """Turn an original checkpoint into a run folder.

    Parameters
    ----------
    checkpoint : Path
        PyTorch file (or a state dict as safetensors).
    out : Path
        The run folder.
    infos, words : Path, optional
        The original's ``infos`` (read without unpickling it), or a label JSON; one is needed.
    captioner, heads, activation, positions : optional
        What no tensor tells; by default as `infos` say, else spatial, 8 heads, relu, and positions
        as the tensors tell (`fixed` has none).
    grid_mode : {"box", "cell"}
        How its grid vectors were made.
    store_dir : Path, optional
        Features that the captioner is to read; they are checked, and recorded.

    Raises
    ------
    CapscopeError
        Naming the file, the tensor, what was expected and what was found.
    """
    options, vocabulary = _facts(infos, words)
    name = captioner or NAMES.get(str(options.get("caption_model", "transformer")), "")
    if name not in CAPTIONERS:
        raise CapscopeError(
            f"captioner {captioner or options.get('caption_model')!r}; there are: "
            f"{', '.join(CAPTIONERS)}"
        )
    loaded = read_foreign(checkpoint)
    with about(checkpoint):
        state = state_of(loaded)
        chosen: dict[str, Any] = {"dropout": float(options.get("dropout", 0.1))}
        if name == "spatial":
            chosen["heads"] = heads or int(options.get("heads", 8))
            chosen["activation"] = activation or str(options.get("ff_activation", "relu")).lower()
            chosen["grid_mode"] = grid_mode
            if positions or (options.get("use_grid") and not options.get("enc_pos_embedding", 1)):
                chosen["positions"] = positions or "fixed"
                chosen["grid"] = round(int(options.get("num_grids", 144)) ** 0.5)
        model = from_original(name, state, str(checkpoint), **chosen)
        if model.vocabulary_size != len(vocabulary):
            raise CapscopeError(
                f"the captioner knows {model.vocabulary_size} words, but {infos or words} has "
                f"{len(vocabulary)}, the end among them: they are not of one training"
            )
        config = config_of(name, state, **chosen)
        size = config["feature_size"]
        described: dict[str, Any] = {"kind": "regions", "dim": size}
        if store_dir is not None:
            store = FeatureStore.open(store_dir)
            if store.dim != size:
                raise CapscopeError(
                    f"the captioner reads {size} numbers of each feature, but {store.path} has "
                    f"{store.dim}"
                )
            described = dict(store.attributes)
    given = {"infos": infos, "words": words}
    write_imported(
        out,
        model,
        name=name,
        system=f"spatial {name}",
        config=config,
        vocabulary=vocabulary,
        features=described,
        decoding=DECODING,
        checkpoint=checkpoint,
        inputs={key: path for key, path in given.items() if path is not None},
        store_dir=store_dir,
        epoch=options.get("epoch"),
        validation_cider=options.get("best_val_score"),
    )


def export_run(run_dir: Path, checkpoint: Path, words: Path) -> None:
    """Write a run as a state dict of the original, and its words as a label JSON.

    Raises
    ------
    CapscopeError
        The captioner is none of the original's, has positions that it has not, or a vocabulary
        whose end, start and padding are not all 0.
    """
    run = load_run(run_dir)
    name, config, vocabulary = run.info["captioner"], run.info["config"], run.vocabulary
    if name not in CAPTIONERS or config.get("positions") == "learned":
        found = f"{name} with positions learned" if name in CAPTIONERS else name
        raise CapscopeError(
            f"{run_dir} is a run of {found}; the original program has: {', '.join(CAPTIONERS)}, "
            "with positions none, fixed, gxg, g2 or box"
        )
    unknown = vocabulary.unk not in (None, len(vocabulary) - 1)
    if (vocabulary.pad, vocabulary.end) != (0, 0) or vocabulary.start not in (None, 0) or unknown:
        raise CapscopeError(
            f"{run_dir}: the original needs the id 0 for end, start and padding, and the unknown "
            "word last; this vocabulary has other ids"
        )
    state = to_original(name, run.captioner.state_dict())
    numbered = {str(i): word for i, word in enumerate(vocabulary.words) if i}
    with atomic_path(checkpoint) as temporary:
        torch.save({key: tensor.contiguous() for key, tensor in state.items()}, temporary)
    write_json(words, {"ix_to_word": numbered, "images": []})


def _facts(infos: Path | None, words: Path | None) -> tuple[dict[str, Any], Vocabulary]:
    """Return the options of the original, and its vocabulary."""
    options: dict[str, Any] = {}
    vocabulary = None if words is None else read_vocabulary(words)
    if infos is not None:
        loaded = read_foreign(infos)
        if not isinstance(loaded, Mapping) or not isinstance(loaded.get("opt"), Mapping):
            raise CapscopeError(f"{infos} is no `infos` of the original: it has no `opt`")
        options = dict(loaded["opt"])
        options |= {key: loaded.get(key) for key in ("epoch", "best_val_score")}
        if vocabulary is None:
            vocabulary = numbered_words(loaded.get("vocab"), infos)
    if vocabulary is None:
        raise CapscopeError("the words are missing: give the original's infos, or its label JSON")
    return options, vocabulary
