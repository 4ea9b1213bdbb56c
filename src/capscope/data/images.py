"""Reading image files of any kind safely, and preparing them for a network."""

from __future__ import annotations

import contextlib
import errno
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image, Skipped
from capscope.errors import CapscopeError

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_PIXELS = 50_000_000
"""Images of more pixels are refused before they are decoded (decompression bombs)."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Formats that are tried; others of Pillow's start programs (EPS) or are of no use here."""
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
)
"""What counts as an image where a folder is given."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# read_image says what matters; Pillow would warn of big images and odd metadata besides.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImageError(CapscopeError):
    """An image file that cannot be read; ``dataset.on_unreadable: skip`` leaves it out."""


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Pillow.Image:
    """Read an image as 8-bit RGB, turned upright.

    The EXIF orientation is applied, transparent parts are laid on white, 16-bit values are scaled
    to 8 bits, and of an animation the first frame is taken.

    Raises
    ------
    UnreadableImageError
        Naming the file: missing, empty, not an image, damaged, or of more than `max_pixels`.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"image {path} cannot be read: {error}") from error
    if size is None:
        raise UnreadableImageError(f"image {path} is missing")
    if size == 0:
        raise UnreadableImageError(f"image {path} is empty (0 bytes)")
    try:
        with Pillow.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnreadableImageError(
                    f"image {path} has {image.width} x {image.height} pixels, more than the "
                    f"{max_pixels} that are allowed"
                )
            image.load()
            return _upright_rgb(image)
    except CapscopeError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"image {path} is not a {', '.join(FORMATS)} file, whatever its name says"
        ) from error
    except Exception as error:  # damaged files raise a dozen types from inside Pillow's decoders
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise UnreadableImageError(f"image {path} is damaged: {error}") from error


def _upright_rgb(image: Pillow.Image) -> Pillow.Image:
    with contextlib.suppress(Exception):  # a broken orientation tag does not spoil the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if image.mode.startswith("I;16") or values.max() > 255:
            values = values // 257
        image = Pillow.fromarray(values.clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("32-bit floating point pixels; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Pillow.new("RGBA", image.size, "white")
        image = Pillow.alpha_composite(white, image)
    return image.convert("RGB")


def preprocess(image: Pillow.Image, size: int | None) -> Tensor:
    """Return an RGB image as (3, size, size) float32, normalised with ImageNet's statistics.

    The image is squeezed to a square (bilinear, no crop), as most published grid features are
    made. Without a `size` it keeps its own: (3, height, width).
    """
    import torch

    if size is not None:
        image = image.resize((size, size), Pillow.Resampling.BILINEAR)
    pixels = np.asarray(image)
    values = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float().div_(255)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    return values.sub_(mean).div_(torch.tensor(IMAGENET_STD).view(3, 1, 1))


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield ``function(item)`` in order, computed a few items ahead by threads."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 8 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def check_images(
    dataset: Dataset, images: Sequence[Image], *, policy: str, workers: int = 2
) -> tuple[tuple[Image, ...], tuple[Skipped, ...]]:
    """Decode every file once; return the images that can be read and those that cannot.

    Width and height are filled in from the file where the annotations have none.

    Parameters
    ----------
    policy : {"fail", "skip"}
        ``fail`` raises the error of the first unreadable image. A path that leaves the image
        folder is always an error.
    """

    def check(image: Image) -> Image | Skipped:
        path = dataset.path(image)
        try:
            width, height = read_image(path).size
        except UnreadableImageError as error:
            if policy == "fail":
                raise
            return Skipped(image.id, image.file, str(error).replace(str(path), image.file))
        if image.width and image.height:
            return image
        return replace(image, width=width, height=height)

    results = map_ahead(check, images, workers)
    found = list(tqdm(results, "checking images", len(images), unit="image"))
    readable = tuple(entry for entry in found if isinstance(entry, Image))
    return readable, tuple(entry for entry in found if isinstance(entry, Skipped))
