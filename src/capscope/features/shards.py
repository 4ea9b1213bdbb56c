"""One extraction dealt out to several jobs, whose stores are joined to that of a single job."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from capscope.data.karpathy import SKIPPED_FILE
from capscope.errors import CapscopeError
from capscope.features.fields import Field, map_fields
from capscope.features.resume import resume_fields
from capscope.features.store import FEATURES_FILE
from capscope.files import MANIFEST, atomic_path, digest, read_manifest, write_text

Item = TypeVar("Item")

SHARD_KIND = "features-shard"
SHARDS_FOLDER = "shards"
_ROWS = 64  # images that are copied at once


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
        """Return this shard's share of `items`: consecutive, as even as can be."""
        if len(items) < self.of:
            raise CapscopeError(
                f"{self.of} shards, but the images fill {len(items)} batches only: lower "
                "features.shards or the batch size"
            )
        first, last = (len(items) * n // self.of for n in (self.number - 1, self.number))
        return items[first:last]


def shard_folder(out: Path, shard: Shard) -> Path:
    """Return where a shard of the features in `out` is made."""
    return out / SHARDS_FOLDER / str(shard)


def open_shards(out: Path, count: int) -> list[dict[str, Any]]:
    """Return the manifests of all shards, checked against their files by hash.

    Raises
    ------
    CapscopeError
        Naming the shard that is not finished, damaged, or not made as the first one was.
    """
    manifests: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        shard = Shard(number, count)
        folder = shard_folder(out, shard)
        if not (folder / MANIFEST).exists():
            raise CapscopeError(
                f"shard {shard} of {out} is not finished: run capscope features with "
                f"--shard {number}/{count}"
            )
        manifests.append(read_manifest(folder, SHARD_KIND, check_hashes=True))
        for key in ("params", "inputs", "software", "attributes", "fields"):
            if manifests[-1][key] != manifests[0][key]:
                raise CapscopeError(
                    f"{folder} was made with other {key} than shard 1: remove it and run it again"
                )
    return manifests


def join_shards(out: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Write the files of a store from those of all shards, but for the manifest.

    The bytes are those of a store that was written in one go.
    """
    folders = [shard_folder(out, Shard(n, len(manifests))) for n in range(1, len(manifests) + 1)]
    parts = [map_fields(folder / FEATURES_FILE) for folder in folders]
    ids = [image_id for own, _, _ in parts for image_id in own.tolist()]
    fields = {name: Field(tuple(shape), dtype) for name, shape, dtype in manifests[0]["fields"]}
    identity = digest([manifest["identity"] for manifest in manifests])
    with (
        resume_fields(out / FEATURES_FILE, ids, fields, parts[0][2], identity) as writer,
        tqdm(total=len(ids), initial=writer.done, desc="joining shards", unit="image") as progress,
    ):
        passed = 0
        for own, arrays, _ in parts:
            for start in range(0, len(own), _ROWS):
                count = len(own[start : start + _ROWS])
                if passed >= writer.done:
                    rows = {name: array[start : start + count] for name, array in arrays.items()}
                    writer.append(rows)
                    progress.update(count)
                passed += count
    _join_skipped(folders, out)
    own_files = (FEATURES_FILE, SKIPPED_FILE)
    _copy_extractor(folders[0], out, [n for n in manifests[0]["files"] if n not in own_files])


def remove_shards(out: Path) -> None:
    """Remove the shards of a store that has been joined: all at once, as far as can be seen."""
    removed = out / f".{SHARDS_FOLDER}.removed"
    if removed.exists():
        shutil.rmtree(removed)  # by a process that was killed
    (out / SHARDS_FOLDER).rename(removed)
    shutil.rmtree(removed)


def _copy_extractor(first: Path, out: Path, names: Iterable[str]) -> None:
    for name in names:
        with atomic_path(out / name) as temporary:
            shutil.copyfile(first / name, temporary)


def _join_skipped(folders: Sequence[Path], out: Path) -> None:
    header, *_ = (folders[0] / SKIPPED_FILE).read_text("utf-8").splitlines(keepends=True)
    rows = [
        row
        for folder in folders
        for row in (folder / SKIPPED_FILE).read_text("utf-8").splitlines(keepends=True)[1:]
    ]
    write_text(out / SKIPPED_FILE, "".join([header, *rows]))
