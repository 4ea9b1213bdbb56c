"""Feature stores of the shards of one extraction, joined to that of a single job."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from capscope.data.karpathy import SKIPPED_FILE
from capscope.features.fields import Field, map_fields
from capscope.features.resume import resume_fields
from capscope.features.store import FEATURES_FILE
from capscope.files import atomic_path, digest, write_text
from capscope.shards import Shard, all_shards

SHARD_KIND = "features-shard"
SHARDS_FOLDER = "shards"
ALIKE = ("params", "inputs", "software", "attributes", "fields")
"""What the manifests of all shards of a store agree in."""
_ROWS = 64  # images that are copied at once


def shard_folder(out: Path, shard: Shard) -> Path:
    """Return where a shard of the features in `out` is made."""
    return out / SHARDS_FOLDER / str(shard)


def join_shards(out: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Write the files of a store from those of all shards, but for the manifest.

    The bytes are those of a store that was written in one go.
    """
    folders = [shard_folder(out, shard) for shard in all_shards(len(manifests))]
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
