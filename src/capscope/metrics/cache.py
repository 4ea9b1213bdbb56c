"""What slow programs answered, kept on disk: the same lines in, the same lines out.

An entry is found by the hash of the ordered lines that were asked, the program and its version. It
carries the hash of its own lines, so that a damaged one is as good as none. The folder may be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from capscope.errors import CapscopeError
from capscope.files import cache_folder, write_text
from capscope.params import expand_path


def placed(setting: str, name: str = "") -> Path:
    """Return a folder of the parameters; ``auto`` is `name` below `cache_folder`.

    Where the cache is belongs to a machine, so it is no part of what results are made from; and
    ``params.yaml`` cannot name a variable, which `dvc exp run` would expand.
    """
    return cache_folder() / name if setting == "auto" else expand_path(setting)


@dataclass(frozen=True)
class LineCache:
    """Answers of one program.

    Attributes
    ----------
    folder : Path or None
        None keeps nothing.
    program : str
        Its name and options; the version of pycocoevalcap, which holds the jars, is added.
    """

    folder: Path | None
    program: str

    def get(self, asked: Sequence[str]) -> list[str] | None:
        """Return the answers to these lines, one each, or None."""
        if self.folder is None:
            return None
        try:
            head, _, body = self._path(asked).read_bytes().partition(b"\n")
        except OSError:
            return None
        if head.decode("ascii", "replace") != _hash(body):
            return None
        answers = body.decode("utf-8").split("\n")[:-1]
        return answers if len(answers) == len(asked) else None

    def put(self, asked: Sequence[str], answers: Sequence[str]) -> None:
        """Keep answers; where the folder cannot be written to, warn and go on."""
        if self.folder is None:
            return
        body = "".join(answer + "\n" for answer in answers)
        try:
            write_text(self._path(asked), f"{_hash(body.encode())}\n{body}")
        except (CapscopeError, OSError) as error:
            warnings.warn(f"metrics.cache: {error}", stacklevel=2)

    def lines(
        self, asked: Sequence[str], compute: Callable[[Sequence[str]], list[str]]
    ) -> list[str]:
        """Return the answers kept, or compute and keep them."""
        answers = self.get(asked)
        if answers is None:
            answers = compute(asked)
            self.put(asked, answers)
        return answers

    def _path(self, asked: Sequence[str]) -> Path:
        assert self.folder is not None
        key = "\n".join([self.program, metadata.version("pycocoevalcap"), *asked])
        return self.folder / self.program / f"{_hash(key.encode('utf-8', 'replace'))}.txt"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
