"""The process that opens HDF5 files of others: see `capscope.features.importing.hdf5`.

``python -m capscope.features.importing.hdf5_worker`` answers requests until its input ends: a line
of JSON [path, names], names being null to list what is at the top of the file. An answer is the
length of a JSON text (8 bytes), that text [problem, names, [[type, shape], ...]], and the arrays.
It imports nothing else of capscope, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

MEMORY = 8 << 30
"""Address space of this process."""
LARGEST = 1 << 26
"""Numbers that an array may hold; a damaged header may claim any size."""

Array = NDArray[Any]


def serve() -> None:
    """Answer requests; the file read last stays open."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    path, file = None, None
    for line in sys.stdin:
        wanted, names = json.loads(line)
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
        text = json.dumps([problem, found, shapes]).encode()
        answers.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            answers.write(array.tobytes())
        answers.flush()


def _array(file: Any, name: str) -> Array:
    link = file.get(name, getlink=True)
    if link is None:
        raise KeyError(f"there is no dataset {name}")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is a link to another place")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"dataset {name} takes its values from another file")
    if dataset.dtype.kind not in "fiub" or dataset.size > LARGEST:
        raise ValueError(f"dataset {name} of type {dataset.dtype} and shape {dataset.shape}")
    return np.ascontiguousarray(dataset[()])


if __name__ == "__main__":
    serve()
