"""Reading HDF5 files of others in a process of its own, with a time limit.

The HDF5 library trusts its files: a damaged one can crash the process or keep it busy for ever. So
the process that imports only ever sees plain arrays.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from capscope.features.importing.hdf5_worker import Array
from capscope.features.importing.sources import DamagedFeaturesError
from capscope.lifeline import tied

SECONDS = 60.0
"""Time that opening a file and reading from it may take."""
STEP = 1 << 20
"""Bytes that are read at once."""


class GuardedHdf5:
    """Lists and reads datasets of HDF5 files; what fails is a `DamagedFeaturesError`.

    A reader that crashes or takes longer than `seconds` is ended, and the next file gets a new one.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

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
            self._process.communicate()
        self._process = None

    def _ask(self, path: Path, names: list[str] | None) -> tuple[list[str], list[Array]]:
        try:
            if self._process is None:
                self._process = self._start()
            assert self._process.stdin is not None
            request = json.dumps([str(path.resolve()), names]) + "\n"
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
            deadline = time.monotonic() + self.seconds
            length = int.from_bytes(self._receive(8, deadline), "little")
            problem, found, shapes = json.loads(self._receive(length, deadline))
            arrays = []
            for kind, shape in shapes:
                size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
                arrays.append(np.frombuffer(self._receive(size, deadline), kind).reshape(shape))
        except TimeoutError as error:
            self.close()
            raise DamagedFeaturesError(
                f"{path} was not read within {self.seconds:g} seconds: it is damaged, or on a slow "
                "disk"
            ) from error
        except (EOFError, OSError) as error:
            self.close()
            raise DamagedFeaturesError(f"{path} made the HDF5 library crash") from error
        if problem:
            raise DamagedFeaturesError(f"{path}: {problem}")
        return found, arrays

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            tied([sys.executable, "-m", "capscope.features.importing.hdf5_worker"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )

    def _receive(self, size: int, deadline: float) -> bytearray:
        """Read so many bytes of the answer."""
        assert self._process is not None
        assert self._process.stdout is not None
        answer = self._process.stdout.fileno()
        data = bytearray()
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([answer], [], [], left)[0]:
                raise TimeoutError
            part = os.read(answer, min(STEP, size - len(data)))
            if not part:
                raise EOFError
            data += part
        return data
