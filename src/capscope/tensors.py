"""Tensors on disk: our own files are safetensors; what others saved is read as plain data only."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capscope.errors import CapscopeError
from capscope.files import atomic_path
from capscope.lifeline import tied

if TYPE_CHECKING:
    from torch import Tensor, nn

FOREIGN_SECONDS = 600
"""Time that reading a foreign file may take."""
ABOUT = "capscope"
"""The one entry of a file's metadata, as JSON: safetensors writes several in any order."""
SHOWN = 5
"""Problems that an error lists."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; one that is cut short or damaged is a `CapscopeError`.

    Files of ours hold a checksum. Those of others are damaged only if they do not fit the format.
    """
    import safetensors.torch

    try:
        tensors = safetensors.torch.load_file(path)
        about = _about(path)
    except FileNotFoundError as error:
        raise CapscopeError(f"{path} does not exist") from error
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CapscopeError(f"{path} is not a valid safetensors file: {error}") from error
    if about and about.get("sha256") != _checksum(tensors, about.get("texts", {})):
        raise CapscopeError(f"{path} is damaged: it differs from its checksum")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts that stand beside the tensors of a valid safetensors file."""
    texts: dict[str, str] = _about(path).get("texts", {})
    return texts


def _about(path: Path) -> dict[str, Any]:
    """Return what we wrote beside the tensors; nothing in files of others."""
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
        return found


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, atomically; the same tensors give the same bytes."""
    import safetensors.torch

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = dict(metadata or {})
    about = {"sha256": _checksum(whole, texts), "texts": texts}
    content = safetensors.torch.save(whole, {ABOUT: json.dumps(about, sort_keys=True)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    import torch

    total = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def fit(module: nn.Module, tensors: Mapping[str, Tensor], where: Path | str) -> None:
    """Load `tensors` into `module`; every name and shape must fit, every value be finite.

    Raises
    ------
    CapscopeError
        Naming `where` and the tensors that are missing, unknown, of another shape, or not finite.
    """
    own = module.state_dict()
    problems = [
        *(f"missing {name}" for name in own if name not in tensors),
        *(f"unknown {name}" for name in tensors if name not in own),
        *(
            f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ),
        *(f"{name} is not finite" for name, value in tensors.items() if not value.isfinite().all()),
    ]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CapscopeError(f"weights {where} do not fit: {'; '.join(problems[:SHOWN])}{more}")
    module.load_state_dict(dict(tensors))


def read_foreign(path: Path) -> Any:
    """Read a PyTorch, safetensors or HDF5 file from elsewhere: dicts, lists, tensors, texts.

    A PyTorch file is a pickle, and a pickle can run code; a damaged HDF5 file can keep its library
    busy for ever. Such a file is read by `capscope.foreign`, in a
    process of its own with little time and memory, by an unpickler that knows tensors and plain
    data only. A pickled optimiser or scheduler, which old checkpoints hold, comes out as None.

    Raises
    ------
    CapscopeError
        The file does not exist, is damaged, holds anything else, or takes too much.
    """
    if not path.is_file():
        raise CapscopeError(f"{path} does not exist, or is no file")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    with tempfile.TemporaryDirectory(prefix="capscope-") as folder:
        plain = Path(folder) / "plain.safetensors"
        command = [sys.executable, "-m", "capscope.foreign", str(path.resolve()), str(plain)]
        try:
            done = subprocess.run(
                tied(command), capture_output=True, text=True, timeout=FOREIGN_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CapscopeError(
                f"{path}: reading it was given up after {FOREIGN_SECONDS} seconds"
            ) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"the reader ended with code {done.returncode}"
            raise CapscopeError(f"{path} was not loaded: {reason}")
        tensors = read_tensors(plain)
        return _restored(json.loads(read_metadata(plain)["structure"]), tensors)


def _restored(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put tensors back into the structure that `capscope.foreign` wrote."""
    if not isinstance(node, dict):
        return node
    (kind, content), *_ = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "list":
        return [_restored(item, tensors) for item in content]
    return {key: _restored(value, tensors) for key, value in content}
