"""What one extraction job makes, and from what: the same for grids and regions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from capscope.data.annotations import Dataset, Image, Skipped, open_dataset
from capscope.data.images import check_images
from capscope.data.karpathy import SKIPPED_FILE, write_skipped
from capscope.errors import CapscopeError
from capscope.features.device import chosen_precision, compute_device
from capscope.features.fields import Field
from capscope.features.shards import ALIKE, SHARD_KIND, SHARDS_FOLDER, join_shards, shard_folder
from capscope.files import MANIFEST, digest, read_manifest, sha256_of, software, write_manifest
from capscope.shards import Shard, check_shards, open_shards, remove_shards

KIND = "features"


@dataclass(frozen=True)
class Job:
    """One extraction job, the only one of a store or one of several.

    Attributes
    ----------
    folder : Path
        Where this job writes.
    dataset : Dataset
        All images, also those of other jobs.
    chunks : tuple of tuples of Image
        The images of this job, as many as go through the network at once. Which images are
        together depends on the data set alone: other neighbours could change the last bits.
    skipped : tuple of Skipped
        Images of this job that cannot be read.
    params : dict
        What the features depend on.
    inputs : dict of str to Path
        Manifests that they are made from.
    shard : Shard or None
    """

    folder: Path
    dataset: Dataset
    chunks: tuple[tuple[Image, ...], ...]
    skipped: tuple[Skipped, ...]
    params: dict[str, Any]
    inputs: dict[str, Path]
    shard: Shard | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of this job, in the order of the data set."""
        return tuple(image for chunk in self.chunks for image in chunk)

    @cached_property
    def identity(self) -> str:
        """Tell this job from every other; unfinished work of another is not gone on with."""
        ids = [image.id for image in self.images]
        hashes = {name: sha256_of(path) for name, path in self.inputs.items()}
        return digest([ids, self.params, hashes, software(), list(self.shard or ())])

    @property
    def first(self) -> bool:
        """Whether this job keeps the extractor: the only one, or the first of several."""
        return self.shard is None or self.shard.number == 1

    def is_complete(self) -> bool:
        """Say whether this is a shard that was made before, from the same."""
        if self.shard is None:
            return False
        try:
            manifest = read_manifest(self.folder, SHARD_KIND)
        except CapscopeError:
            return False
        return bool(manifest.get("identity") == self.identity)

    def seal(self, attributes: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
        """List what was skipped and write the manifest; `fields` are those of the store."""
        write_skipped(self.folder / SKIPPED_FILE, self.skipped)
        facts: dict[str, Any] = {}
        if self.shard is not None:
            shapes = [[name, list(field.shape), field.dtype] for name, field in fields.items()]
            facts = {"identity": self.identity, "fields": shapes}
        write_manifest(
            self.folder,
            KIND if self.shard is None else SHARD_KIND,
            params=self.params,
            inputs=self.inputs,
            attributes=attributes,
            images=len(self.images),
            skipped=len(self.skipped),
            **facts,
        )
        if self.shard is None:  # of a number of jobs that was given up
            remove_shards(self.folder / SHARDS_FOLDER)


def plan_job(
    out: Path,
    data_dir: Path,
    params: Mapping[str, Any],
    kind: str,
    trained: Mapping[str, Path | None],
    shard: Shard | None = None,
) -> Job:
    """Decide what a job extracts.

    Parameters
    ----------
    out : Path
        Folder of the whole store; a shard has one below it.
    kind : {"grid", "regions"}
    trained : mapping of str to Path or None
        Folders of networks that were trained here, by name.
    """
    settings = params["features"][kind]
    policy = params["dataset"]["on_unreadable"]
    dataset = open_dataset(data_dir, params)
    size = settings["batch_size"]
    starts: Sequence[int] = range(0, len(dataset.images), size)
    chunks = [dataset.images[start : start + size] for start in starts]
    if shard is not None:
        if len(chunks) < shard.of:
            raise CapscopeError(
                f"{shard.of} shards, but the images fill {len(chunks)} batches only: lower the "
                "number of shards or the batch size"
            )
        chunks = list(shard.part(chunks))
    skipped: tuple[Skipped, ...] = ()
    if policy == "skip":
        mine = [image for chunk in chunks for image in chunk]
        readable, skipped = check_images(dataset, mine, policy=policy, workers=reading_threads())
        if not readable:
            raise CapscopeError(f"none of the images of {data_dir} can be read")
        known = {image.id for image in readable}
        chunks = [tuple(image for image in chunk if image.id in known) for chunk in chunks]
    return Job(
        out if shard is None else shard_folder(out, shard),
        dataset,
        tuple(chunks),
        skipped,
        _params(kind, params),
        _inputs(data_dir, trained),
        shard,
    )


def gather_features(
    out: Path,
    data_dir: Path,
    params: Mapping[str, Any],
    kind: str,
    trained: Mapping[str, Path | None],
    count: int,
) -> None:
    """Join the `count` shards in `out` to the store that one job would have made.

    Raises
    ------
    CapscopeError
        Naming the shard that is missing, damaged, or made with other parameters or data.
    """
    manifests = open_shards(out / SHARDS_FOLDER, count, SHARD_KIND, ALIKE)
    expected, inputs = _params(kind, params), _inputs(data_dir, trained)
    if "precision" in expected:  # that of the shards; this job may run on another machine
        expected["precision"] = manifests[0]["params"].get("precision")
    check_shards(out / SHARDS_FOLDER, manifests[0], expected, inputs)
    (out / MANIFEST).unlink(missing_ok=True)
    join_shards(out, manifests)
    write_manifest(
        out,
        KIND,
        params=manifests[0]["params"],
        inputs=inputs,
        attributes=manifests[0]["attributes"],
        images=sum(manifest["images"] for manifest in manifests),
        skipped=sum(manifest["skipped"] for manifest in manifests),
    )
    remove_shards(out / SHARDS_FOLDER)


def reading_threads() -> int:
    """Return how many threads read images: one for each processor of this process."""
    return max(1, len(os.sched_getaffinity(0)))


def _params(kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
    found = {**params["features"][kind], "on_unreadable": params["dataset"]["on_unreadable"]}
    if "precision" in found:
        found["precision"] = chosen_precision(found["precision"], compute_device())
    return found


def _inputs(data_dir: Path, trained: Mapping[str, Path | None]) -> dict[str, Path]:
    found = {"data": data_dir, **{name: path for name, path in trained.items() if path}}
    return {name: folder / MANIFEST for name, folder in found.items()}
