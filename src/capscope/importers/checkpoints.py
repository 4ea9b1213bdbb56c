"""What checkpoints of the original programs have in common: a state dict, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from capscope.errors import CapscopeError

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
