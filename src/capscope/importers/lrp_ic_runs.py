"""Checkpoints of the original LRP captioning program as runs, and runs as its checkpoints.

The original keeps a PyTorch file with ``epoch``, ``cider``, ``state_dict`` and the like, and a
JSON file with a word map {word: id}. A run folder is what `capscope train` makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.grid import EXTRACTOR_FILE, LAYERS, GridExtractor
from capscope.features.store import FeatureStore
from capscope.features.vgg import VGG, VGG16, plan_of
from capscope.files import (
    atomic_path,
    read_json,
    write_json,
)
from capscope.importers.checkpoints import about, state_of, write_imported
from capscope.importers.lrp_ic import (
    CNN_PREFIX,
    LAYOUTS,
    config_of,
    from_original,
    is_grid,
    to_original,
)
from capscope.models.checkpoint import load_run
from capscope.tensors import fit, read_foreign

SPECIAL = {"pad": "<pad>", "start": "<start>", "end": "<end>", "unk": "<unk>"}
DECODING = {"method": "beam", "beam": 3, "max_length": 20, "batch_size": 32}
WIDTH = "AdaAttention.W_v_proj.weight"


def import_run(
    checkpoint: Path,
    wordmap: Path,
    out: Path,
    *,
    captioner: str,
    features: str,
    image_size: int = 224,
    heads: int = 8,
    store_dir: Path | None = None,
    program: str = "lrp_ic",
) -> None:
    """Turn an original checkpoint into a run folder, with the published behaviour (`parity`).

    Parameters
    ----------
    checkpoint, wordmap : Path
        PyTorch file (or a state dict as safetensors), and the JSON {word: id} beside it.
    out : Path
        The run folder.
    captioner : str
        adaptive, aoa or gridtd.
    features : {"grid", "regions"}
        Which variant the checkpoint is.
    image_size : int
        Width and height to which the grid variant resizes images.
    heads : int
        Heads of AoA, which no tensor tells.
    store_dir : Path, optional
        Features of the kind that the region variant reads; they are checked, and recorded, and what
        made them goes with the run.
    program : {"lrp_ic", "latent"}
        Whose checkpoint it is; the latent-space program has the same gridTD.

    Raises
    ------
    CapscopeError
        Naming the file, the tensor, what was expected and what was found: another architecture,
        vocabulary or feature size; a file that holds more than data.
    """
    vocabulary = read_wordmap(wordmap)
    loaded = read_foreign(checkpoint)
    with about(checkpoint):
        state = state_of(loaded)
        _check(state, vocabulary, wordmap, features)
        options = {"heads": heads} if captioner == "aoa" else {}
        model, network = from_original(captioner, state, **options)
        size, width = int(state["img_projector.weight"].shape[1]), None
        if WIDTH in state:
            width = int(state[WIDTH].shape[0])
        extractor = None
        described: dict[str, Any] = {"kind": "regions", "dim": size}
        if features == "grid":
            extractor = _extractor(network, image_size, size, width)
            described = extractor.spec()
        elif store_dir is not None:
            described = _described(FeatureStore.open(store_dir), size, width)
    facts = loaded if isinstance(loaded, Mapping) else {}
    write_imported(
        out,
        model,
        name=captioner,
        system=f"{program} {captioner}",
        config=config_of(captioner, state, **options),
        vocabulary=vocabulary,
        features=described,
        decoding=DECODING,
        checkpoint=checkpoint,
        inputs={"wordmap": wordmap},
        extractor=extractor,
        store_dir=store_dir,
        epoch=facts.get("epoch"),
        validation_cider=facts.get("cider"),
        options=options,
    )


def export_run(run_dir: Path, checkpoint: Path, wordmap: Path) -> None:
    """Write a run as a checkpoint of the original program, and its word map.

    Raises
    ------
    CapscopeError
        The captioner is none of the original's, or works in a way that the original's does not:
        adaptive attention in its published form only (`parity`), features as the network gives
        them, a vocabulary with all four special words.
    """
    run = load_run(run_dir)
    name, config = run.info["captioner"], run.info["config"]
    if name not in LAYOUTS:
        raise CapscopeError(
            f"{run_dir} is a run of {name}; the original program has: {', '.join(LAYOUTS)}"
        )
    if name != "aoa" and not config.get("parity"):
        raise CapscopeError(
            f"{run_dir} was trained with model.parity: false; the original's attention adds a "
            "scalar where this captioner adds a vector, so it would say something else: train "
            "with model.parity: true to export"
        )
    state: dict[str, Tensor] = {}
    grid = (run_dir / EXTRACTOR_FILE).exists()
    if grid:
        extractor = GridExtractor.load(run_dir)
        if extractor.scale != 1 or extractor.positions:
            raise CapscopeError(
                f"{run_dir} reads features that are scaled by {extractor.scale} and have "
                f"{extractor.positions} position channels; the original has neither: train with "
                "features.grid.scale: 1 and a network without position channels to export"
            )
        state = {CNN_PREFIX + key: value for key, value in extractor.network.state_dict().items()}
    missing = [key for key in SPECIAL if getattr(run.vocabulary, key) is None]
    if missing:
        raise CapscopeError(f"{run_dir}: the vocabulary has no {', '.join(missing)} word")
    state |= to_original(name, run.captioner.state_dict(), grid=grid)
    content = {
        "epoch": run.info.get("epoch") or 0,
        "epochs_since_improvement": 0,
        "bleu-4": 0.0,
        "cider": run.info.get("validation_cider") or 0.0,
        "state_dict": {key: tensor.contiguous() for key, tensor in state.items()},
        "optimizer": None,
    }
    with atomic_path(checkpoint) as temporary:
        torch.save(content, temporary)
    special = {getattr(run.vocabulary, key): word for key, word in SPECIAL.items()}
    words = {special.get(i, word): i for i, word in enumerate(run.vocabulary.words)}
    write_json(wordmap, words)


def read_wordmap(path: Path) -> Vocabulary:
    """Read an original word map: {word: id} with <pad>, <start>, <end> and <unk>."""
    loaded = read_json(path)
    if not isinstance(loaded, dict) or not all(type(value) is int for value in loaded.values()):
        raise CapscopeError(f"{path} is no word map: expected an object of words and whole numbers")
    absent = [word for word in SPECIAL.values() if word not in loaded]
    if absent:
        raise CapscopeError(f"{path} is no word map: it has no {', '.join(absent)}")
    if sorted(loaded.values()) != list(range(len(loaded))):
        raise CapscopeError(f"{path}: the ids are not 0 to {len(loaded) - 1}, each once")
    words = tuple(sorted(loaded, key=lambda word: int(loaded[word])))
    return Vocabulary(words, **{key: loaded[word] for key, word in SPECIAL.items()})


def _check(
    state: Mapping[str, Tensor], vocabulary: Vocabulary, wordmap: Path, features: str
) -> None:
    """Refuse a checkpoint of another vocabulary, or of the other variant."""
    embedding, projector = state.get("embedding.weight"), state.get("img_projector.weight")
    if embedding is not None and embedding.dim() == 2 and len(embedding) != len(vocabulary):
        raise CapscopeError(
            f"tensor 'embedding.weight' has shape {tuple(embedding.shape)}, expected "
            f"({len(vocabulary)}, {embedding.shape[1]}): {wordmap} has {len(vocabulary)} words"
        )
    if projector is not None and projector.dim() in (2, 4):
        found = "grid" if is_grid(state) else "regions"
        if found != features:
            expected = 4 if features == "grid" else 2
            raise CapscopeError(
                f"tensor 'img_projector.weight' has shape {tuple(projector.shape)}, expected "
                f"{expected} axes: it reads {found}, not {features}"
            )


def _extractor(
    network: Mapping[str, Tensor], image_size: int, size: int, width: int | None
) -> GridExtractor:
    """Return the image network of the grid variant, which must fit the captioner."""
    plan = plan_of(network)
    stack = VGG(plan)
    fit(stack, network, f"under {CNN_PREFIX}")
    if tuple(plan) == VGG16:
        extractor = GridExtractor("vgg16", stack, image_size, layer=LAYERS["vgg16"])
    else:
        config = {"plan": plan}
        extractor = GridExtractor("vgg", stack, image_size, layer="last", config=config)
    if extractor.channels != size:
        raise CapscopeError(
            f"tensor 'img_projector.weight' reads {size} channels, expected "
            f"{extractor.channels}: so many has the image network"
        )
    cells = extractor.grid[0] * extractor.grid[1]
    if width not in (None, cells):
        raise CapscopeError(
            f"tensor {WIDTH!r} has {width} rows, expected {cells}: so many cells has an image "
            f"of {image_size} pixels; give the image size that it was trained with"
        )
    return extractor


def _described(store: FeatureStore, size: int, width: int | None) -> dict[str, Any]:
    """Return what region features are; they must fit the captioner."""
    if store.kind != "regions":
        raise CapscopeError(f"{store.path} holds {store.kind} features, expected regions")
    if store.dim != size:
        raise CapscopeError(
            f"tensor 'img_projector.weight' reads {size} numbers a region, expected {store.dim}: "
            f"so many has {store.path}"
        )
    if width not in (None, store.grid[0]):
        raise CapscopeError(
            f"tensor {WIDTH!r} has {width} rows, expected {store.grid[0]}: so many regions an "
            f"image has {store.path}"
        )
    return dict(store.attributes)
