"""Images of a folder that is known by the ids in their file names only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from capscope.data.annotations import Dataset
from capscope.data.images import IMAGE_SUFFIXES
from capscope.errors import CapscopeError


def with_image_files(dataset: Dataset, folder: Path) -> Dataset:
    """Return a data set with the image files of a folder.

    A file belongs to the image whose id its name ends with, such as ``7.jpg`` or
    ``COCO_val2014_000000000007.jpg``; images without a file stay as they are.

    Raises
    ------
    CapscopeError
        The folder has no file for any image, or two for one.
    """
    if not folder.is_dir():
        raise CapscopeError(f"{folder} is not a folder of images")
    known = {image.id for image in dataset.images}
    files: dict[int, Path] = {}
    for image_id, path in _numbered(folder):
        if image_id in known:
            if image_id in files:
                raise CapscopeError(f"{files[image_id]} and {path} are both image {image_id}")
            files[image_id] = path
    if not files:
        raise CapscopeError(f"{folder} has no file whose name ends with the id of an image")
    images = tuple(
        replace(image, file=files[image.id].relative_to(folder).as_posix())
        if image.id in files
        else image
        for image in dataset.images
    )
    return replace(dataset, root=folder, images=images)


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.rglob("*")):
        digits = re.search(r"\d+$", path.stem)
        if digits and path.suffix.lower() in IMAGE_SUFFIXES:
            yield int(digits[0]), path
