"""Pretrained models of the learned metrics: from a folder or the hub, named by their weights."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, TypeVar

import torch
from torch import nn

from capscope.metrics.task import UnavailableError
from capscope.params import expand_path

Loaded = TypeVar("Loaded")


def load(kind: Callable[..., Loaded], name: str, key: str, **options: Any) -> Loaded:
    """Call a ``from_pretrained``; a model that cannot be had is an `UnavailableError`.

    Parameters
    ----------
    kind : callable
        Such as ``transformers.AutoModel.from_pretrained``.
    name : str
        Folder, or name on the hub.
    key : str
        The parameter that holds `name`, for the message.
    """
    path = expand_path(name)
    if name.startswith(("/", ".", "~", "$")) and not path.is_dir():
        raise UnavailableError(f"model not available: there is no folder {path}; see {key}")
    with _quiet():
        try:
            return kind(str(path), **options)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UnavailableError(
                f"model {name!r} not available ({reason}); {key} may be a folder that holds it"
            ) from error


def device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of all weights in use, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def provenance(name: str, model: nn.Module, *packages: str) -> str:
    """Return what a score depends on: the model, its weights, the libraries."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    return f"{name} (weights sha256 {weights_digest(model)[:16]}); {versions}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice out of the log."""
    from transformers.utils import logging as library

    bars, level = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()
