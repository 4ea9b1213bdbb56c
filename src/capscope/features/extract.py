"""From images to a feature store of grids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image
from capscope.data.images import check_images, map_ahead, read_image
from capscope.errors import CapscopeError
from capscope.features.device import arithmetic, compute_device, moved, placed
from capscope.features.fields import Field
from capscope.features.grid import GridExtractor, build_extractor
from capscope.features.job import plan_job, reading_threads
from capscope.features.store import create_store
from capscope.files import MANIFEST
from capscope.shards import Shard

SCALE_IMAGES = 256


def extract_grid(
    dataset: Dataset,
    extractor: GridExtractor,
    out: Path,
    *,
    batch_size: int,
    dtype: str,
    workers: int,
    chunks: Sequence[Sequence[Image]] | None = None,
    precision: str = "float32",
    identity: str | None = None,
) -> dict[str, Field]:
    """Write ``features.h5`` with the grid features of images; return the fields of the store.

    Threads read and prepare images while the network computes. An image that cannot be read is a
    `CapscopeError`, and there is no store then.

    Parameters
    ----------
    chunks : sequence of sequences of Image, optional
        The images, as many as go through the network at once; all of `dataset` by default.
    precision : {"float32", "bfloat16"}
    identity : str, optional
        With it, an interrupted call is gone on with: see `capscope.features.resume`.
    """
    if chunks is None:
        starts = range(0, len(dataset.images), batch_size)
        chunks = [dataset.images[start : start + batch_size] for start in starts]
    ids = [image.id for chunk in chunks for image in chunk]
    height, width = extractor.grid
    names = extractor.segmenter.names if extractor.segmenter is not None else ()
    with (
        create_store(
            out,
            ids,
            cells=height * width,
            dim=extractor.dim,
            dtype=dtype,
            attributes=extractor.spec(),
            segments=(height * width, len(names)) if names else None,
            identity=identity,
        ) as writer,
        tqdm(
            total=len(ids), initial=writer.done, desc=f"{extractor.name} features", unit="image"
        ) as progress,
    ):
        batches = _batches(dataset, extractor, left(chunks, writer.done), workers)
        for cells in _computed(extractor, batches, precision):
            writer.append(cells, extractor.segments(cells))
            progress.update(len(cells))
    return writer.fields


def left(chunks: Iterable[Sequence[Image]], done: int) -> Iterator[Sequence[Image]]:
    """Return what remains of chunks of images when the first `done` images are left out."""
    for chunk in chunks:
        if done < len(chunk):
            yield chunk[done:]
        done = max(0, done - len(chunk))


def unit_scale(
    dataset: Dataset,
    extractor: GridExtractor,
    *,
    batch_size: int,
    workers: int,
    policy: str = "fail",
    precision: str = "float32",
) -> float:
    """Return the factor that brings the network's maps to a root mean square of 1.

    It is measured on `SCALE_IMAGES` training images spread evenly over the split, and rounded to
    four digits, so that it does not depend on the last bits of a machine. Under the policy
    ``skip``, those that cannot be read are left out.
    """
    images = dataset.split("train") or dataset.images
    some: Sequence[Image] = images[:: max(1, len(images) // SCALE_IMAGES)][:SCALE_IMAGES]
    if policy == "skip":
        some, _ = check_images(dataset, some, policy=policy, workers=workers)
    chunks = [some[start : start + batch_size] for start in range(0, len(some), batch_size)]
    total, values = 0.0, 0
    batches = _batches(dataset, extractor, chunks, workers)
    for maps in _computed(extractor.network, batches, precision):
        total += float(maps.double().pow(2).sum())
        values += maps.numel()
    if not 0 < total < float("inf"):
        raise CapscopeError(f"the maps of {extractor.name} are all zero or not finite")
    return float(f"{(values / total) ** 0.5:.4g}")


def _computed(
    network: torch.nn.Module, batches: Iterable[Tensor], precision: str
) -> Iterator[Tensor]:
    """Yield what a network says of each batch, as float32.

    A GPU is given the next batch before it is asked for what it made of the last one, so that it
    need not wait for the disk.
    """
    device = compute_device()
    last: Tensor | None = None
    for batch in batches:
        with torch.inference_mode(), arithmetic(precision, device):
            found: Tensor = network(moved(batch, device)).float()
        if device.type == "cpu":
            yield found
            continue
        if last is not None:
            yield last.cpu()
        last = found
    if last is not None:
        yield last.cpu()


def _batches(
    dataset: Dataset,
    extractor: GridExtractor,
    chunks: Iterable[Sequence[Image]],
    workers: int,
) -> Iterator[Tensor]:
    """Yield preprocessed images (B, 3, H, W), read ahead by threads; a batch has one size."""

    def prepare(place: tuple[Image, bool]) -> tuple[Tensor, bool]:
        image, last = place
        return extractor.preprocess(read_image(dataset.path(image))), last

    places = ((image, image is chunk[-1]) for chunk in chunks for image in chunk)
    batch: list[Tensor] = []
    for pixels, last in map_ahead(prepare, places, workers):
        if batch and batch[0].shape != pixels.shape:
            yield torch.stack(batch)
            batch = []
        batch.append(pixels)
        if last:
            yield torch.stack(batch)
            batch = []


def prepare_features(
    out: Path,
    data_dir: Path,
    params: Mapping[str, Any],
    backbone: Path | None = None,
    shard: Shard | None = None,
    run_dir: Path | None = None,
) -> None:
    """Write the store of grid features of a data set, the extractor beside it, and the manifest.

    Under ``dataset.on_unreadable: skip``, images that cannot be read are left out, counted in the
    manifest and listed in ``skipped.csv``.

    Parameters
    ----------
    shard : Shard, optional
        Make only this part, in a folder of its own below `out`; nothing if it is there already.
    run_dir : Path, optional
        A run whose training fine-tuned the network: it is taken from there, scale and all.
    """
    settings = params["features"]["grid"]
    trained = {"backbone": backbone, "run": run_dir}
    job = plan_job(out, data_dir, params, "grid", trained, shard)
    if job.is_complete():
        return
    precision = job.params["precision"]
    tuned = None if run_dir is None else GridExtractor.load(run_dir)
    extractor = tuned or build_extractor(settings, backbone)
    placed(extractor, compute_device())
    batch_size, workers = settings["batch_size"], reading_threads()
    if settings["scale"] == "rms" and tuned is None:
        extractor.scale = unit_scale(
            job.dataset,
            extractor,
            batch_size=batch_size,
            workers=workers,
            policy=params["dataset"]["on_unreadable"],
            precision=precision,
        )
    (job.folder / MANIFEST).unlink(missing_ok=True)
    fields = extract_grid(
        job.dataset,
        extractor,
        job.folder,
        batch_size=batch_size,
        dtype=settings["dtype"],
        workers=workers,
        chunks=job.chunks,
        precision=precision,
        identity=job.identity,
    )
    if job.first:
        extractor.save(job.folder)
    job.seal(extractor.spec(), fields)
