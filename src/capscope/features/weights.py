"""Weights of image networks: from a file, or from torchvision's download. Nothing is unpickled."""

from __future__ import annotations

import http.client
import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.tensors import read_foreign

TIMEOUT = 30.0
"""Seconds without an answer before a download is given up."""
PREFIX = "features."
"""Where torchvision's state dicts hold the convolutional part; the rest is the classifier."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or a PyTorch file (nothing in it is run)."""
    loaded = read_foreign(path)
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise CapscopeError(f"weights {path} are not a state dict (names and tensors)")
    return dict(loaded)


def convolutional(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the classifier that a torchvision network has besides."""
    if not any(name.startswith(PREFIX) for name in state):
        return dict(state)
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX)
    }


def download_weights(name: str) -> tuple[dict[str, Tensor], str]:
    """Return torchvision's first ImageNet weights of a network and their address."""
    from torchvision import models

    try:
        published = models.get_model_weights(name)
    except ValueError as error:
        raise CapscopeError(
            f"torchvision has no weights of {name}: give a path as features.grid.weights"
        ) from error
    address = str(getattr(published, "IMAGENET1K_V1", published.DEFAULT).url)
    return download_state(address, "features.grid.weights"), address


def download_state(address: str, key: str) -> dict[str, Tensor]:
    """Return a state dict of torchvision's by its address.

    It is kept in PyTorch's cache; a second call needs no network. `key` is the parameter that
    takes a path in place of the download.
    """
    try:
        with _socket_timeout(TIMEOUT):
            state = torch.hub.load_state_dict_from_url(
                address, map_location="cpu", check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError) as error:
        raise CapscopeError(
            f"cannot download {address} ({error}). Without a network, put that file anywhere and "
            f"set {key} to its path"
        ) from error
    return dict(state)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
