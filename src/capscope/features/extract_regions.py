"""From images to a store of regions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image, Skipped, open_dataset
from capscope.data.images import check_images, map_ahead, read_image
from capscope.data.karpathy import SKIPPED_FILE, write_skipped
from capscope.errors import CapscopeError
from capscope.features.detector.protocol import Detector
from capscope.features.extractor import build_detector
from capscope.features.store import create_region_store
from capscope.files import MANIFEST, write_manifest


def extract_regions(
    dataset: Dataset, detector: Detector, out: Path, *, batch_size: int, dtype: str, workers: int
) -> None:
    """Write ``features.h5`` with the regions of all images of `dataset`.

    Threads read images while the detector works. An image that cannot be read is a
    `CapscopeError`, and no file is left.
    """

    def read(image: Image) -> NDArray[np.uint8]:
        return np.asarray(read_image(dataset.path(image)))

    ids = [image.id for image in dataset.images]
    with (
        create_region_store(
            out,
            ids,
            regions=detector.most,
            dim=detector.dim,
            dtype=dtype,
            attributes=detector.spec(),
            details=detector.details,
        ) as writer,
        tqdm(total=len(ids), desc="regions", unit="image") as progress,
    ):
        batch: list[NDArray[np.uint8]] = []
        for number, picture in enumerate(map_ahead(read, dataset.images, workers), 1):
            batch.append(picture)
            if len(batch) == batch_size or number == len(ids):
                writer.append(detector.detect(batch, progress.update))
                batch = []


def prepare_regions(
    out: Path, data_dir: Path, params: dict[str, Any], detector_dir: Path | None = None
) -> None:
    """Write the store of regions of a data set, the detector beside it, and the manifest.

    Under ``dataset.on_unreadable: skip``, images that cannot be read are left out, counted in the
    manifest and listed in ``skipped.csv``.
    """
    settings = params["features"]["regions"]
    policy = params["dataset"]["on_unreadable"]
    dataset = open_dataset(data_dir, params)
    workers = max(1, len(os.sched_getaffinity(0)))
    skipped: Sequence[Skipped] = ()
    if policy == "skip":
        images, skipped = check_images(dataset, dataset.images, policy=policy, workers=workers)
        if not images:
            raise CapscopeError(f"none of the images of {data_dir} can be read")
        dataset = replace(dataset, images=images)
    detector = build_detector(settings, detector_dir)
    (out / MANIFEST).unlink(missing_ok=True)
    extract_regions(
        dataset,
        detector,
        out,
        batch_size=settings["batch_size"],
        dtype=settings["dtype"],
        workers=workers,
    )
    detector.save(out)
    write_skipped(out / SKIPPED_FILE, skipped)
    inputs = {"data": data_dir / MANIFEST}
    if detector_dir is not None:
        inputs["detector"] = detector_dir / MANIFEST
    write_manifest(
        out,
        "features",
        params={**settings, "on_unreadable": policy},
        inputs=inputs,
        attributes={"kind": "regions", **detector.spec()},
        images=len(dataset.images),
        skipped=len(skipped),
    )
