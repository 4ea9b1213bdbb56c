"""Weights of grid networks: from a file, or from torchvision's download. Nothing is unpickled."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError

DOWNLOADS = {"vgg16": "VGG16_Weights", "squeezenet1_0": "SqueezeNet1_0_Weights"}
TIMEOUT = 30.0
"""Seconds without an answer before a download is given up."""
PREFIX = "features."
"""Where torchvision's state dicts hold the convolutional part; the rest is the classifier."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: a PyTorch file (weights only, no code is run) or safetensors."""
    if not path.is_file():
        raise CapscopeError(f"weights {path} do not exist; put a state dict there")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CapscopeError(
            f"weights {path} are not a plain state dict of tensors, so they were not loaded "
            f"(a pickle can run code): {str(error).splitlines()[0]}"
        ) from error
    except Exception as error:  # damaged files raise many types: zip, struct, EOF, safetensors
        raise CapscopeError(f"weights {path} cannot be read: {error}") from error
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise CapscopeError(f"weights {path} are not a state dict (names and tensors)")
    return dict(loaded)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Load a state dict into `network`; the classifier of a torchvision state dict is left out.

    Raises
    ------
    CapscopeError
        Naming `source` and the keys that are missing, unknown, of another shape or not finite.
    """
    if any(name.startswith(PREFIX) for name in state):
        state = {
            name.removeprefix(PREFIX): tensor
            for name, tensor in state.items()
            if name.startswith(PREFIX)
        }
    own = network.state_dict()
    problems = [
        *(f"missing {name}" for name in own if name not in state),
        *(f"unknown {name}" for name in state if name not in own),
        *(
            f"{name} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ),
        *(f"{name} is not finite" for name, value in state.items() if not value.isfinite().all()),
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CapscopeError(f"weights {source} do not fit: {'; '.join(problems[:5])}{more}")
    network.load_state_dict(state)


def download_weights(name: str) -> tuple[dict[str, Tensor], str]:
    """Return torchvision's ImageNet weights of a network and their address.

    They are kept in PyTorch's cache; a second call needs no network.
    """
    import torchvision

    address = str(getattr(torchvision.models, DOWNLOADS[name]).IMAGENET1K_V1.url)
    try:
        with _socket_timeout(TIMEOUT):
            state = torch.hub.load_state_dict_from_url(
                address, map_location="cpu", check_hash=True, weights_only=True
            )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise CapscopeError(
            f"cannot download {address} ({error}). Without a network, put that file anywhere and "
            "set features.grid.weights to its path"
        ) from error
    return dict(state), address


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
