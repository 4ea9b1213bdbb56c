"""Training that goes through the image network: images in place of stored features."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image
from capscope.data.images import IMAGENET_MEAN, IMAGENET_STD, map_ahead, read_image
from capscope.errors import CapscopeError
from capscope.features.extractor import load_extractor
from capscope.features.grid import GridExtractor
from capscope.features.visual import Features
from capscope.files import atomic_path
from capscope.models.captioner import Captioner
from capscope.models.from_images import FromImages, pass_noise, split_weights
from capscope.tensors import fit

IMAGES_FILE = "images.npy"


class ImageReader:
    """Images by id, as `FromImages` takes them: bytes in a file, normalised when they are read.

    Parameters
    ----------
    path : Path
        A ``.npy`` file (N, S, S, 3), made if it is not there.
    dataset : Dataset
    ids : sequence of int
        Which images.
    size : int
        S, to which images are resized.
    """

    def __init__(self, path: Path, dataset: Dataset, ids: Sequence[int], size: int) -> None:
        self.ids = np.unique(np.asarray(ids, np.int64))
        if not path.exists():
            _write_images(path, dataset, [dataset.by_id(int(i)) for i in self.ids], size)
        self.pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        if self.pixels.shape != (len(self.ids), size, size, 3):
            raise CapscopeError(f"{path} holds other images; delete {path.parent}")

    def rows(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> NDArray[np.int64]:
        """Return the rows of images in the file; an unknown image is a `CapscopeError`."""
        wanted = np.asarray(ids, np.int64)
        places = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        unknown = wanted[self.ids[places] != wanted]
        if unknown.size:
            raise CapscopeError(f"image {unknown[0]} was not prepared for training")
        return np.asarray(places, np.int64)

    def read(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> Features:
        """Return images (B, 3, S, S) in place of features; channels lie side by side."""
        chosen = torch.from_numpy(self.pixels[self.rows(ids)])
        return Features(normalised(chosen))


def normalised(pixels: Tensor) -> Tensor:
    """Return bytes (B, S, S, 3) as `capscope.data.images.preprocess` does: (B, 3, S, S)."""
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(deviation)


def with_network(
    captioner: Captioner, features_dir: Path, settings: Mapping[str, Any]
) -> FromImages:
    """Return the captioner with the image network of `features_dir`, both to be trained.

    Parameters
    ----------
    settings : mapping
        ``batch_norm`` and ``noise_pass`` of a stage's parameters.
    """
    extractor = load_extractor(features_dir)
    if not isinstance(extractor, GridExtractor):
        raise CapscopeError(
            f"encoder: fine_tuned needs the network that made the features in {features_dir}, "
            "a grid; regions and imported features are read with encoder: frozen"
        )
    trained = FromImages(captioner, extractor, settings.get("batch_norm", "frozen"))
    if settings.get("noise_pass"):
        pass_noise(extractor.network, extractor.image_size or 0)
    return trained


def save_network(
    trained: FromImages, tensors: Mapping[str, Tensor], out: Path
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Write the network of `tensors` beside a run.

    Returns
    -------
    tensors : dict
        The captioner's own weights.
    spec : dict
        What the features of the network are.
    """
    own, network = split_weights(tensors)
    fit(trained.extractor.network, network, out)
    trained.extractor.save(out)
    return own, trained.extractor.spec()


def _write_images(path: Path, dataset: Dataset, images: Sequence[Image], size: int) -> None:
    """Read all images once, resized as for features, into one file of bytes."""

    def prepare(image: Image) -> NDArray[np.uint8]:
        pixels = read_image(dataset.path(image))
        return np.asarray(pixels.resize((size, size), Pillow.Resampling.BILINEAR))

    workers = max(1, len(os.sched_getaffinity(0)))
    shape = (len(images), size, size, 3)
    with atomic_path(path) as temporary:
        held = np.lib.format.open_memmap(temporary, "w+", dtype=np.uint8, shape=shape)
        prepared = map_ahead(prepare, images, workers)
        for row, pixels in enumerate(tqdm(prepared, "images", len(images), unit="image")):
            held[row] = pixels
        held.flush()
