"""Making a file in the layout of ``coco.pt`` from any data set."""

from __future__ import annotations

import io
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from tqdm import tqdm

from capscope.data.annotations import Dataset, Image
from capscope.data.coco_pt import SPECIAL, SPLITS
from capscope.data.images import map_ahead, read_image
from capscope.errors import CapscopeError
from capscope.files import MANIFEST, atomic_path, write_manifest

KIND = "coco_pt"
PT_FILE, HDF5_FILE = "coco.pt", "coco.h5"
_SPECIAL = tuple(SPECIAL.values())


class Recipe(NamedTuple):
    """What is taken from a data set; the defaults are the sizes of the published file.

    Attributes
    ----------
    train, val : int
        Images of each split, drawn with `seed`; of each image one reference.
    size : int
        Pixels. Images are squeezed to a square (bilinear); how the published ones were made is
        not known.
    words : int
        Longer captions are cut.
    vocabulary : int
        So many of the most frequent words are kept, besides four special ones.
    """

    train: int = 10_000
    val: int = 500
    size: int = 112
    words: int = 15
    vocabulary: int = 860
    seed: int = 0


def build_coco_pt(dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """Return the content of a ``coco.pt``: arrays by name, and ``vocab``.

    Words are counted over the captions that were drawn for ``train``; the more frequent gets the
    lower id, of equals the one that comes first.

    Raises
    ------
    CapscopeError
        The data set has fewer images than are asked for; an image that cannot be read.
    """
    generator = random.Random(recipe.seed)
    drawn = {split: _drawn(dataset, split, getattr(recipe, split), generator) for split in SPLITS}
    counts = Counter(word for _, words in drawn["train"] for word in words)
    kept = [word for word, _ in counts.most_common(recipe.vocabulary) if word not in _SPECIAL]
    ids = {word: number for number, word in enumerate((*_SPECIAL, *kept))}
    content: dict[str, Any] = {}
    for split, pairs in drawn.items():
        content[f"{split}_images"] = _pictures(dataset, [image for image, _ in pairs], recipe.size)
        content[f"{split}_captions"] = _rows([words for _, words in pairs], ids, recipe.words)
    return content | {"vocab": {"idx_to_token": list(ids), "token_to_idx": ids}}


def write_coco_pt(
    folder: Path,
    dataset: Dataset,
    recipe: Recipe,
    inputs: Mapping[str, Path] = {},
) -> None:
    """Write ``coco.pt``, its twin ``coco.h5`` and a manifest; the same data give the same bytes."""
    import h5py
    import torch

    content = build_coco_pt(dataset, recipe)
    (folder / MANIFEST).unlink(missing_ok=True)
    arrays = {name: value for name, value in content.items() if name != "vocab"}
    buffer = io.BytesIO()  # a name in the archive would depend on that of the file
    torch.save({**content, **{name: torch.from_numpy(a) for name, a in arrays.items()}}, buffer)
    with atomic_path(folder / PT_FILE) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    buffer = io.BytesIO()  # HDF5 itself does not survive a full disk
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.create_group("vocab")["idx_to_token"] = content["vocab"]["idx_to_token"]
    with atomic_path(folder / HDF5_FILE) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    write_manifest(folder, KIND, params=recipe._asdict(), inputs=inputs)


def _drawn(
    dataset: Dataset, split: str, count: int, generator: random.Random
) -> list[tuple[Image, Sequence[str]]]:
    images = dataset.split(split)
    if count > len(images):
        raise CapscopeError(
            f"data set {dataset.name} has {len(images)} images of split {split!r}, {count} are "
            "asked for"
        )
    rows = sorted(generator.sample(range(len(images)), count))
    return [(images[row], generator.choice(images[row].tokens)) for row in rows]


def _rows(captions: Sequence[Sequence[str]], ids: Mapping[str, int], words: int) -> NDArray[Any]:
    pad, start, end, unk = (ids[word] for word in _SPECIAL)
    rows = np.full((len(captions), words + 2), pad, np.int64)
    for row, caption in zip(rows, captions, strict=True):
        known = [unk if word in _SPECIAL else ids.get(word, unk) for word in caption[:words]]
        framed = [start, *known, end]
        row[: len(framed)] = framed
    return rows


def _pictures(dataset: Dataset, images: Sequence[Image], size: int) -> NDArray[np.uint8]:
    def read(image: Image) -> NDArray[np.uint8]:
        picture = read_image(dataset.path(image))
        squeezed = picture.resize((size, size), Pillow.Resampling.BILINEAR)
        return np.asarray(squeezed).transpose(2, 0, 1)

    found = np.empty((len(images), 3, size, size), np.uint8)
    workers = max(1, len(os.sched_getaffinity(0)))
    pictures = map_ahead(read, images, workers)
    for row, picture in enumerate(tqdm(pictures, "images", len(images), unit="image")):
        found[row] = picture
    return found
