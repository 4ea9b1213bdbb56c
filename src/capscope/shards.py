"""One step of the workflow dealt out to several jobs, and what they make joined again.

Each job makes a shard: a folder ``2-of-8`` with a manifest, in a folder for all shards of a
product, which the job that joins them removes. How many there are is no part of what they make
together: items are dealt out in whole batches, and joined files are those of one job to the byte.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from capscope.errors import CapscopeError
from capscope.files import MANIFEST, read_manifest, sha256_of

Item = TypeVar("Item")


class Shard(NamedTuple):
    """One job of several, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/8`` or ``2-of-8``."""
        found = re.fullmatch(r"(\d+)(?:/|-of-)(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise CapscopeError(f"shard {text!r}: expected such as 2/8, counted from 1")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """Name the shard as Snakemake names an item of a scatter."""
        return f"{self.number}-of-{self.of}"

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this shard's share of `items`: consecutive, as even as can be; maybe none."""
        first, last = (len(items) * n // self.of for n in (self.number - 1, self.number))
        return items[first:last]


def all_shards(count: int) -> list[Shard]:
    """Return the shards of `count` jobs."""
    return [Shard(number, count) for number in range(1, count + 1)]


def open_shards(
    place: Path, count: int, kind: str, same: Sequence[str] = ("params", "inputs", "software")
) -> list[dict[str, Any]]:
    """Return the manifests of all shards in `place`, checked against their files by hash.

    Raises
    ------
    CapscopeError
        Naming the shard that is not finished, damaged, or not made as the first one was: `same` are
        the keys of the manifests that must be equal.
    """
    manifests: list[dict[str, Any]] = []
    for shard in all_shards(count):
        folder = place / str(shard)
        if not (folder / MANIFEST).exists():
            raise CapscopeError(
                f"shard {shard} in {place} is not finished: run the same command with "
                f"--shard {shard.number}/{count} in place of --gather"
            )
        manifests.append(read_manifest(folder, kind, check_hashes=True))
        for key in same:
            if manifests[-1].get(key) != manifests[0].get(key):
                raise CapscopeError(
                    f"{folder} was made with other {key} than shard 1: remove it and run it again"
                )
    return manifests


def check_shards(
    place: Path, manifest: Mapping[str, Any], params: Any, inputs: Mapping[str, Path]
) -> None:
    """Check that shards with such a manifest were made with these parameters from these inputs."""
    if manifest["params"] != json.loads(json.dumps(params)):
        raise CapscopeError(
            f"the shards in {place} were made with other parameters: make them anew"
        )
    if manifest["inputs"] != {name: sha256_of(path) for name, path in inputs.items()}:
        raise CapscopeError(f"the shards in {place} were made from other data: make them anew")


def remove_shards(place: Path) -> None:
    """Remove the shards in `place`, if there are any: all at once, as far as can be seen."""
    removed = place.with_name(f".{place.name}.removed")
    if removed.exists():
        shutil.rmtree(removed)  # by a process that was killed
    if place.exists():
        place.rename(removed)
        shutil.rmtree(removed)
