"""From images to a store of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image
from capscope.data.images import map_ahead, read_image
from capscope.features.detector.protocol import Detector
from capscope.features.extract import left
from capscope.features.extractor import build_detector
from capscope.features.fields import Field
from capscope.features.job import plan_job, reading_threads
from capscope.features.store import create_region_store
from capscope.files import MANIFEST
from capscope.shards import Shard


def extract_regions(
    dataset: Dataset,
    detector: Detector,
    out: Path,
    *,
    chunks: Sequence[Sequence[Image]],
    dtype: str,
    workers: int,
    identity: str,
) -> dict[str, Field]:
    """Write ``features.h5`` with the regions of images; return the fields of the store.

    Threads read images while the detector works. An image that cannot be read is a
    `CapscopeError`, and there is no store then.

    Parameters
    ----------
    chunks : sequence of sequences of Image
        The images, as many as the detector gets at once.
    identity : str
        An interrupted call is gone on with: see `capscope.features.resume`.
    """

    def read(image: Image) -> NDArray[np.uint8]:
        return np.asarray(read_image(dataset.path(image)))

    ids = [image.id for chunk in chunks for image in chunk]
    with (
        create_region_store(
            out,
            ids,
            regions=detector.most,
            dim=detector.dim,
            dtype=dtype,
            attributes=detector.spec(),
            details=detector.details,
            identity=identity,
        ) as writer,
        tqdm(total=len(ids), initial=writer.done, desc="regions", unit="image") as progress,
    ):
        rest = list(left(chunks, writer.done))
        pictures = map_ahead(read, (image for chunk in rest for image in chunk), workers)
        for chunk in rest:
            batch = [next(pictures) for _ in chunk]
            writer.append(detector.detect(batch, progress.update))
    return writer.fields


def prepare_regions(
    out: Path,
    data_dir: Path,
    params: Mapping[str, Any],
    detector_dir: Path | None = None,
    shard: Shard | None = None,
) -> None:
    """Write the store of regions of a data set, the detector beside it, and the manifest.

    Under ``dataset.on_unreadable: skip``, images that cannot be read are left out, counted in the
    manifest and listed in ``skipped.csv``.

    Parameters
    ----------
    shard : Shard, optional
        Make only this part, in a folder of its own below `out`; nothing if it is there already.
    """
    settings = params["features"]["regions"]
    job = plan_job(out, data_dir, params, "regions", {"detector": detector_dir}, shard)
    if job.is_complete():
        return
    detector = build_detector(settings, detector_dir)
    (job.folder / MANIFEST).unlink(missing_ok=True)
    fields = extract_regions(
        job.dataset,
        detector,
        job.folder,
        chunks=job.chunks,
        dtype=settings["dtype"],
        workers=reading_threads(),
        identity=job.identity,
    )
    if job.first:
        detector.save(job.folder)
    job.seal({"kind": "regions", **detector.spec()}, fields)
