"""What checkpoints of the original programs share: a state dict, and the run they become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.features.extractor import EXTRACTOR_FILES, copy_extractor
from capscope.features.grid import GridExtractor
from capscope.files import (
    MANIFEST,
    sha256_of,
    software,
    write_json,
    write_manifest,
    writing,
)
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import INFO_FILE, MODEL_FILE
from capscope.tensors import write_tensors

PARALLEL = "module."
"""What torch puts before each name if a model was trained on several devices."""


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Put the file in front of what is wrong with it."""
    try:
        yield
    except CapscopeError as error:
        raise CapscopeError(f"{path}: {error}") from error


def state_of(loaded: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with an entry ``state_dict``, or of a state dict alone."""
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise CapscopeError("no checkpoint: expected an entry 'state_dict' with tensors")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CapscopeError(f"no checkpoint: {name!r} is no tensor")
    parallel = all(name.startswith(PARALLEL) for name in state)
    return {name.removeprefix(PARALLEL) if parallel else name: t for name, t in state.items()}


def write_imported(
    out: Path,
    captioner: Captioner,
    *,
    name: str,
    system: str,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    features: Mapping[str, Any],
    decoding: Mapping[str, Any],
    checkpoint: Path,
    inputs: Mapping[str, Path],
    extractor: GridExtractor | None = None,
    store_dir: Path | None = None,
    epoch: Any = None,
    validation_cider: Any = None,
    options: Mapping[str, Any] = {},
) -> None:
    """Write an imported captioner as a finished run.

    Parameters
    ----------
    out : Path
        The run folder; what a run that was there before left of its image network goes.
    name, system : str
        A key of `capscope.models.CAPTIONERS`, and the original program with its variant.
    config : mapping
        Arguments of the captioner's constructor.
    features, decoding : mapping
        What it reads, and how the original decodes.
    checkpoint : Path
    inputs : mapping
        The other files that were read.
    extractor : GridExtractor, optional
        The image network, if the checkpoint holds it.
    store_dir : Path, optional
        Features that it reads; what made them, a detector perhaps, goes with the run, which then
        takes images.
    epoch, validation_cider
        As the checkpoint tells; None if it does not.
    options : mapping
        What was given besides the files.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / MANIFEST).unlink(missing_ok=True)
        for file in EXTRACTOR_FILES:
            (out / file).unlink(missing_ok=True)
        write_tensors(out / MODEL_FILE, captioner.state_dict())
        described = None
        if extractor is not None:
            extractor.save(out)
            described = extractor.spec()
        elif store_dir is not None:
            described = copy_extractor(store_dir, out)
        info = {
            "captioner": name,
            "config": dict(config),
            "system": system,
            "stage": "imported",
            "seed": None,
            "dataset": None,
            "vocabulary": vocabulary.to_json(),
            "vocabulary_sha256": vocabulary.sha256,
            "extractor": described,
            "features": dict(features),
            "imported": {"checkpoint": checkpoint.name, "sha256": sha256_of(checkpoint)},
            "software": software(),
            "decoding": dict(decoding),
            "epoch": epoch,
            "validation_cider": validation_cider,
        }
        write_json(out / INFO_FILE, info)
        write_manifest(
            out,
            "run",
            params={"captioner": name, **options},
            inputs={"checkpoint": checkpoint, **inputs},
        )
