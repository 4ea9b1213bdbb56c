"""Reading HDF5 files of others in a process of its own, with a time limit.

The HDF5 library trusts its files: a damaged one can crash the process or keep it busy for ever. So
the process that imports only ever sees plain arrays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from capscope.features.importing.hdf5_worker import Array, serve
from capscope.features.importing.sources import (
    DamagedFeaturesError,
)

SECONDS = 60.0
"""Time that opening a file and reading from it may take."""


class GuardedHdf5:
    """Lists and reads datasets of HDF5 files; what fails is a `DamagedFeaturesError`.

    A reader that crashes or takes longer than `seconds` is ended, and the next file gets a new one.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: Any = None
        self._pipe: Connection | None = None

    def names(self, path: Path) -> list[str]:
        """Return the names of what is at the top of a file."""
        return self._ask(path, None)[0]

    def read(self, path: Path, names: Sequence[str]) -> dict[str, Array]:
        """Return some datasets of a file whole."""
        found, arrays = self._ask(path, list(names))
        return dict(zip(found, arrays, strict=True))

    def close(self) -> None:
        """End the reader."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _ask(self, path: Path, names: list[str] | None) -> tuple[list[str], list[Array]]:
        pipe = self._start()
        try:
            pipe.send((str(path), names))
            if not pipe.poll(self._seconds):
                self.close()
                raise DamagedFeaturesError(
                    f"{path} was not read within {self._seconds:g} seconds: it is damaged, or on a "
                    "slow disk"
                )
            problem, found, shapes = _plain(pipe.recv_bytes())
            arrays = [
                np.frombuffer(pipe.recv_bytes(), kind).reshape(shape) for kind, shape in shapes
            ]
        except (EOFError, OSError) as error:
            self.close()
            raise DamagedFeaturesError(f"{path} made the HDF5 library crash") from error
        if problem:
            raise DamagedFeaturesError(f"{path}: {problem}")
        return found, arrays

    def _start(self) -> Connection:
        if self._pipe is None:
            context = get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=serve, args=(other,), daemon=True)
            self._process.start()
            other.close()
        return self._pipe


def _plain(message: bytes) -> tuple[str, list[str], list[tuple[str, list[int]]]]:
    problem, names, shapes = json.loads(message)
    return problem, names, [(kind, shape) for kind, shape in shapes]
