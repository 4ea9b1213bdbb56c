"""From images to a feature store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image, Skipped, open_dataset
from capscope.data.images import check_images, map_ahead, read_image
from capscope.data.karpathy import SKIPPED_FILE, write_skipped
from capscope.errors import CapscopeError
from capscope.features.grid import GridExtractor, build_extractor
from capscope.features.store import create_store
from capscope.files import MANIFEST, write_manifest

SCALE_IMAGES = 256


def extract_grid(
    dataset: Dataset,
    extractor: GridExtractor,
    out: Path,
    *,
    batch_size: int,
    dtype: str,
    workers: int,
) -> None:
    """Write ``features.h5`` with the grid features of all images of `dataset`.

    Threads read and prepare images while the network computes. An image that cannot be read is a
    `CapscopeError`, and no file is left.
    """
    ids = [image.id for image in dataset.images]
    height, width = extractor.grid
    with (
        create_store(
            out,
            ids,
            cells=height * width,
            dim=extractor.dim,
            dtype=dtype,
            attributes=extractor.spec(),
        ) as writer,
        tqdm(total=len(ids), desc=f"{extractor.name} features", unit="image") as progress,
        torch.inference_mode(),
    ):
        for batch in _batches(dataset, extractor, batch_size, workers):
            writer.append(extractor(batch))
            progress.update(len(batch))


def unit_scale(
    dataset: Dataset, extractor: GridExtractor, *, batch_size: int, workers: int
) -> float:
    """Return the factor that brings the network's maps to a root mean square of 1.

    It is measured on `SCALE_IMAGES` training images spread evenly over the split, and rounded to
    four digits, so that it does not depend on the last bits of a machine.
    """
    images = dataset.split("train") or dataset.images
    some = replace(dataset, images=images[:: max(1, len(images) // SCALE_IMAGES)][:SCALE_IMAGES])
    total, values = 0.0, 0
    with torch.inference_mode():
        for batch in _batches(some, extractor, batch_size, workers):
            maps = extractor.network(batch)
            total += float(maps.double().pow(2).sum())
            values += maps.numel()
    if not 0 < total < float("inf"):
        raise CapscopeError(f"the maps of {extractor.name} are all zero or not finite")
    return float(f"{(values / total) ** 0.5:.4g}")


def _batches(
    dataset: Dataset, extractor: GridExtractor, batch_size: int, workers: int
) -> Iterator[Tensor]:
    """Yield preprocessed images (B, 3, H, W), read ahead by threads; a batch has one size."""

    def prepare(image: Image) -> Tensor:
        return extractor.preprocess(read_image(dataset.path(image)))

    batch: list[Tensor] = []
    for pixels in map_ahead(prepare, dataset.images, workers):
        if batch and batch[0].shape != pixels.shape:
            yield _stack(batch)
            batch = []
        batch.append(pixels)
        if len(batch) == batch_size:
            yield _stack(batch)
            batch = []
    if batch:
        yield _stack(batch)


def _stack(images: list[Tensor]) -> Tensor:
    return torch.stack(images).contiguous(memory_format=torch.channels_last)


def prepare_features(
    out: Path, data_dir: Path, params: dict[str, Any], backbone: Path | None = None
) -> None:
    """Write the store of grid features of a data set, the extractor beside it, and the manifest.

    Under ``dataset.on_unreadable: skip``, images that cannot be read are left out, counted in the
    manifest and listed in ``skipped.csv``.
    """
    settings = params["features"]["grid"]
    policy = params["dataset"]["on_unreadable"]
    dataset = open_dataset(data_dir, params)
    workers = max(1, len(os.sched_getaffinity(0)))
    skipped: Sequence[Skipped] = ()
    if policy == "skip":
        images, skipped = check_images(dataset, dataset.images, policy=policy, workers=workers)
        if not images:
            raise CapscopeError(f"none of the images of {data_dir} can be read")
        dataset = replace(dataset, images=images)
    extractor = build_extractor(settings, backbone).to(memory_format=torch.channels_last)
    batch_size = settings["batch_size"]
    if settings["scale"] == "rms":
        extractor.scale = unit_scale(dataset, extractor, batch_size=batch_size, workers=workers)
    (out / MANIFEST).unlink(missing_ok=True)
    extract_grid(
        dataset,
        extractor,
        out,
        batch_size=batch_size,
        dtype=settings["dtype"],
        workers=workers,
    )
    extractor.save(out)
    write_skipped(out / SKIPPED_FILE, skipped)
    inputs = {"data": data_dir / MANIFEST}
    if backbone is not None:
        inputs["backbone"] = backbone / MANIFEST
    write_manifest(
        out,
        "features",
        params={**settings, "on_unreadable": policy},
        inputs=inputs,
        attributes=extractor.spec(),
        images=len(dataset.images),
        skipped=len(skipped),
    )
