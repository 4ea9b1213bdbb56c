"""The process that opens HDF5 files of others: see `capscope.features.importing.hdf5`.

It imports nothing else of capscope, so that it starts fast.
"""

from __future__ import annotations

import json
import resource
from multiprocessing.connection import Connection
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

MEMORY = 8 << 30
"""Address space of this process."""
LARGEST = 1 << 26
"""Numbers that an array may hold; a damaged header may claim any size."""

Array = NDArray[Any]


def serve(pipe: Connection) -> None:
    """Answer requests until the other end closes; the file read last stays open."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    path, file = None, None
    while True:
        try:
            wanted, names = pipe.recv()
        except EOFError:
            return
        problem = ""
        found: list[str] = []
        arrays: list[Array] = []
        try:
            if wanted != path or file is None:
                path, file = None, h5py.File(wanted, "r")
                path = wanted
            found = list(file) if names is None else names
            arrays = [_array(file, name) for name in names or ()]
        except Exception as error:  # HDF5 raises many types on damaged files
            problem, found, arrays = f"{error}" or type(error).__name__, [], []
        shapes = [(array.dtype.str, array.shape) for array in arrays]
        pipe.send_bytes(json.dumps([problem, found, shapes]).encode())
        for array in arrays:
            pipe.send_bytes(array.data.cast("B") if array.size else b"")


def _array(file: Any, name: str) -> Array:
    if name not in file:
        raise KeyError(f"there is no dataset {name}")
    dataset = file[name]
    if dataset.dtype.kind not in "fiub" or dataset.size > LARGEST:
        raise ValueError(f"dataset {name} of type {dataset.dtype} and shape {dataset.shape}")
    return np.ascontiguousarray(dataset[()])
