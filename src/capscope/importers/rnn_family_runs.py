"""State dicts of the original recurrent captioners as runs.

The original saves nothing itself: a checkpoint is ``model.state_dict()`` as its users keep it, or a
dictionary with it under ``state_dict``. All three cells are in it, whichever was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from capscope.data.coco_pt import SPECIAL, read_coco_pt
from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.classifier import CUTS, cut
from capscope.features.grid import GridExtractor
from capscope.files import (
    read_json,
)
from capscope.importers.checkpoints import about, state_of, write_imported
from capscope.importers.rnn_family import from_original
from capscope.tensors import fit, read_foreign

NETWORK = "regnet_x_400mf"
DECODING = {"method": "greedy", "max_length": 15, "batch_size": 32}


def import_run(
    checkpoint: Path, vocabulary: Path, out: Path, *, captioner: str, image_size: int = 112
) -> None:
    """Turn an original state dict into a run folder.

    Parameters
    ----------
    checkpoint : Path
        PyTorch file (or a state dict as safetensors).
    vocabulary : Path
        JSON {word: id} (``token_to_idx``), or the ``coco.pt`` itself.
    out : Path
        The run folder.
    captioner : {"rnn", "lstm", "attention_lstm"}
        Which of the cells was trained.
    image_size : int
        Width and height to which images are resized.

    Raises
    ------
    CapscopeError
        Naming the file, the tensor, what was expected and what was found: another architecture,
        vocabulary or image size; a file that holds more than data.
    """
    words = read_words(vocabulary)
    loaded = read_foreign(checkpoint)
    with about(checkpoint):
        state = state_of(loaded)
        model, network = from_original(captioner, state)
        if model.vocabulary_size != len(words):
            raise CapscopeError(
                f"tensor 'model_emb.W_embed' has {model.vocabulary_size} rows, expected "
                f"{len(words)}: so many words has {vocabulary}"
            )
        extractor = None if network is None else _extractor(network, image_size)
        size, cells = model.feature_size, getattr(model, "cells", None)
        if extractor is not None and extractor.channels != size:
            raise CapscopeError(
                f"the captioner reads {size} channels, its image network has {extractor.channels}"
            )
        if extractor is not None and cells not in (None, extractor.grid[0] * extractor.grid[1]):
            raise CapscopeError(
                f"tensor 'feature_projection.weight' flattens {cells} cells, but images of "
                f"{image_size} pixels have {extractor.grid[0]} x {extractor.grid[1]}: give the "
                "image size that it was trained with (112 as published)"
            )
    facts = loaded if isinstance(loaded, Mapping) else {}
    described = {"dim": size} if extractor is None else extractor.spec()
    write_imported(
        out,
        model,
        name=captioner,
        system=f"rnn_family {captioner}",
        config=config_of(model),
        vocabulary=words,
        features=described,
        decoding=DECODING,
        checkpoint=checkpoint,
        inputs={"vocabulary": vocabulary},
        extractor=extractor,
        epoch=facts.get("epoch"),
    )


def read_words(path: Path) -> Vocabulary:
    """Read the word ids of the original: a JSON {word: id}, or the ``vocab`` of a coco.pt."""
    if path.suffix != ".json":
        return read_coco_pt(path).vocabulary
    loaded = read_json(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("token_to_idx"), dict):
        loaded = loaded["token_to_idx"]
    if not isinstance(loaded, dict) or sorted(map(str, loaded.values())) != sorted(
        map(str, range(len(loaded)))
    ):
        raise CapscopeError(
            f"{path} is no vocabulary: expected an object of words with the ids 0, 1, 2, ..., each "
            "once"
        )
    missing = [word for word in SPECIAL.values() if word not in loaded]
    if missing:
        raise CapscopeError(f"{path}: the vocabulary lacks {', '.join(missing)}")
    words = tuple(sorted(loaded, key=lambda word: int(loaded[word])))
    return Vocabulary(words, **{name: int(loaded[word]) for name, word in SPECIAL.items()})


def config_of(model: Any) -> dict[str, Any]:
    """Return the arguments that build a recurrent captioner of the same sizes."""
    config = {
        "vocabulary_size": model.vocabulary_size,
        "feature_size": model.feature_size,
        "embedding": model.embedding.weight.shape[1],
        "hidden": model.words.in_features,
    }
    if not model.attends:
        config |= {"visual": model.visual, "cells": model.cells}
    return config


def _extractor(weights: Mapping[str, Tensor], image_size: int) -> GridExtractor:
    network = cut(NETWORK)
    own = network.state_dict()
    fit(network, {key: value for key, value in weights.items() if key in own}, "under model.cnn.")
    return GridExtractor(NETWORK, network, image_size, layer=CUTS[NETWORK])
