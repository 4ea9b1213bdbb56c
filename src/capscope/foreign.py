"""Reads PyTorch files and pickled arrays of others, in a process of its own: `read_foreign`.

``python -m capscope.foreign FILE OUT`` writes the tensors of FILE to OUT (safetensors), with the
structure that held them as JSON in its metadata. It ends with one line on stderr and code 1 if
FILE holds anything but tensors and plain data.
"""

from __future__ import annotations

import json
import pickle
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.pickled_data import load_pickled_data
from capscope.tensors import write_tensors

GIGABYTE = 1 << 30
MEMORY_FACTOR = 4
"""Memory that reading may take, in sizes of the file, besides a gigabyte."""
SECONDS = 300
"""Processor time that reading may take."""
HDF5 = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""
DEPTH = 4
"""Groups in groups that are followed; a group may be a member of itself."""
PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or later; newer PyTorch files are zip archives."""
TORCH_PICKLE = bytes.fromhex("80028a0a6cfc9c46f920")
"""First bytes of older PyTorch files: protocol 2 and PyTorch's magic number."""
IGNORED = (
    *(f"torch.optim.{name.lower()}.{name}" for name in ("Adam", "AdamW", "SGD", "RMSprop")),
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
    # States of NumPy's random numbers, which checkpoints of training keep.
    *(f"numpy.{place}.multiarray._reconstruct" for place in ("core", "_core")),
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)
"""Classes whose pickled objects are passed over: nothing of them is made."""


class _Nothing:
    """Stands for an object that is passed over."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _empty(*factory: Any) -> dict[Any, Any]:
    """Stand for a defaultdict, which an optimiser holds."""
    return {}


def main(path: str, out: str) -> None:
    """Read `path` and write `out`."""
    _limit(Path(path).stat().st_size)
    tensors: dict[str, Tensor] = {}
    structure = _plain(load(path), tensors, "")
    write_tensors(Path(out), tensors, {"structure": json.dumps(structure)})


def load(path: str) -> Any:
    """Load a PyTorch file, a pickle of arrays or HDF5, with readers that run no code."""
    with Path(path).open("rb") as stream:
        start = stream.read(len(TORCH_PICKLE))
        if start[:1] == PICKLE and start != TORCH_PICKLE:
            stream.seek(0)
            return load_pickled_data(stream)
    if start.startswith(HDF5):
        return _load_hdf5(path)
    try:
        ignored = [(_Nothing, name) for name in IGNORED]
        known: list[Any] = [dict, (_empty, "collections.defaultdict"), *ignored]
        with torch.serialization.safe_globals(known):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CapscopeError(
            f"it holds more than tensors and plain data, and a pickle can run code ({_told(error)})"
        ) from error
    except MemoryError as error:
        raise CapscopeError("reading it takes too much memory for its size") from error
    except Exception as error:  # damaged files raise many types: zip, struct, EOF, key, runtime
        raise CapscopeError(f"it is damaged, or no PyTorch file ({_told(error)})") from error


def _load_hdf5(path: str) -> Any:
    """Load an HDF5 file: groups become dicts; links to other files are refused."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _members(file, 0)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CapscopeError(f"it is damaged ({_told(error)})") from error


def _members(group: Any, depth: int) -> dict[str, Any]:
    import h5py

    if depth > DEPTH:
        raise CapscopeError(f"its groups are more than {DEPTH} deep at {group.name}")
    found: dict[str, Any] = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise CapscopeError(f"{group.name}/{name} is a link to another place")
        member = group[name]
        if isinstance(member, h5py.Group):
            found[name] = _members(member, depth + 1)
        elif member.is_virtual or member.external:
            raise CapscopeError(f"{member.name} takes its values from another file")
        elif h5py.check_string_dtype(member.dtype):
            found[name] = member.asstr()[()].tolist()
        else:
            found[name] = member[()]
    return found


def _limit(size: int) -> None:
    """Limit memory, processor time and the size of files; no core dumps."""
    # RLIMIT_DATA counts what is written to; the libraries' mapped code does not matter.
    memory = MEMORY_FACTOR * size + GIGABYTE
    for kind, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard),) * 2)


def _plain(node: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """Describe `node` in JSON and collect its tensors; `where` names it in errors."""
    if isinstance(node, np.ndarray):
        node = torch.from_numpy(node)
    if isinstance(node, Tensor):
        name = f"{len(tensors)}"
        # Views share memory, which a safetensors file does not allow.
        tensors[name] = node.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if node is None or isinstance(node, (str, bool, int, float)):
        return node
    if isinstance(node, _Nothing):
        return None
    if isinstance(node, (list, tuple)):
        return {"list": [_plain(item, tensors, f"{where}[{i}]") for i, item in enumerate(node)]}
    if isinstance(node, Mapping) and all(isinstance(key, (str, int)) for key in node):
        pairs = [[key, _plain(value, tensors, f"{where}.{key}")] for key, value in node.items()]
        return {"dict": pairs}
    raise CapscopeError(f"it holds a {type(node).__name__} at {where or 'its root'}")


def _told(error: Exception) -> str:
    """Return the one telling sentence of an error of torch's unpickler."""
    found = re.search(r"Unsupported (?:global: GLOBAL|operand|class) \S+", str(error))
    return found[0] if found else (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CapscopeError as problem:
        sys.exit(str(problem))
