"""All that the manifests of a results folder say together: is it whole, and what made what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from capscope.errors import CapscopeError
from capscope.files import MANIFEST, check_record, read_json, sha256_of

MADE_HERE = {"data", "backbone", "detector", "features", "vocabulary", "from", "run", "captions"}
"""Inputs that the workflow makes; others, such as weights, may be anywhere."""


class Problem(NamedTuple):
    """Something wrong in a results folder, and what to do about it."""

    path: Path
    what: str
    remedy: str


@dataclass(frozen=True)
class Record:
    """A manifest.

    Attributes
    ----------
    path : Path
    content : dict
    """

    path: Path
    content: dict[str, Any]

    @property
    def product(self) -> Path:
        """What it is of: a folder or a file."""
        return self.path.parent if self.path.name == MANIFEST else self.path.with_suffix("")

    @property
    def inputs(self) -> dict[str, str]:
        """Hashes of the manifests, or files, that the product was made from, by name."""
        return dict(self.content.get("inputs", {}))

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, by which products made from this one name it."""
        return sha256_of(self.path)


class Records:
    """The manifests below a folder.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    CapscopeError
        There is no such folder, or no manifest in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted([*folder.rglob(MANIFEST), *folder.rglob("*.manifest")])
        if not self.paths:
            raise CapscopeError(f"{folder} holds no results: there is no {MANIFEST} below it")

    @cached_property
    def by_hash(self) -> dict[str, Record]:
        """The readable manifests by their hash."""
        found = {}
        for path in self.paths:
            content = read_json(path)
            if isinstance(content, dict):
                record = Record(path, content)
                found[record.sha256] = record
        return found

    def of(self, product: Path) -> Record:
        """Return the record of a product, or of that which a file is a part of."""
        places = {product, *product.parents}
        for record in self.by_hash.values():
            parts = {record.path.parent / name for name in record.content.get("files", {})}
            if product == record.product or places & parts:
                return record
        raise CapscopeError(
            f"{product} is in no manifest below {self.folder}: it is a log, or not from capscope"
        )

    def problems(self) -> Iterator[Problem]:
        """Compare every product with its manifest by hash, and every manifest with its inputs."""
        whole: dict[str, Record] = {}
        for path in tqdm(self.paths, "verify", unit="manifest", delay=1):
            record = Record(path, {})
            try:
                record = Record(path, check_record(path))
            except CapscopeError as error:
                yield Problem(record.product, str(error), _deletion(record))
            whole[record.sha256] = record
        for record in whole.values():
            for name, sha256 in record.inputs.items():
                if name.split()[0] in MADE_HERE and sha256 not in whole:
                    what = f"{record.product} was made from another {name} than is here"
                    yield Problem(record.product, what, _deletion(record))
        for part in sorted(self.folder.rglob(".*.part")):
            what = f"{part} was left by a process that was killed"
            yield Problem(part, what, f"rm {part}, or let `snakemake all` go on")


def _deletion(record: Record) -> str:
    files = [record.path] if record.path.name == MANIFEST else [record.product, record.path]
    return f"rm -f {' '.join(map(str, files))} && snakemake all"
