"""The relevance store: the explanations of many captions in one HDF5 file.

``relevance.h5`` holds, with R captions of at most T words over N visual features, padded with 0:

=====================  ==================  ======================================================
dataset                shape, type         content
=====================  ==================  ======================================================
image_ids              (R,) int64
word_ids               (R, T) int32        the explained words, without start and end
lengths                (R,) int32          words of each caption
grid                   (R, T, N) float16   relevance of visual features
words                  (R, T, T) float16   relevance of inputs (0 is the start); may be absent
pixels                 (R, T, m, m) f16    relevance of the image, sum-pooled; may be absent
boxes                  (R, N, 4) float32   of regions, whose relevance `pixels` is painted with
conservation/<place>   (R, T) float32      see `Explanation.conservation`
=====================  ==================  ======================================================

Attributes, which the manifest repeats: explainer, title, sign, control (whether it is one), split,
grid (height and width; N and 1 of regions), image_size (pixels; the painted map's of regions).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.explanation import Explanation
from capscope.explain.raster import sum_pool
from capscope.files import atomic_path, read_manifest, write_manifest

FILE = "relevance.h5"
INDEX_KIND = "explanations"
INDEX = "{}.json"
"""File beside the stores that names those of one split."""
KIND = "relevance"
LARGEST = float(np.finfo(np.float16).max)


class Captions(NamedTuple):
    """Captions to explain."""

    image_ids: npt.NDArray[np.int64]
    """(R,)"""
    word_ids: npt.NDArray[np.int32]
    """(R, T) without start and end, padded with 0."""
    lengths: npt.NDArray[np.int32]
    """(R,)"""

    @classmethod
    def of(cls, image_ids: Iterable[int], captions: list[list[int]]) -> Captions:
        """Pad captions given as lists of word ids."""
        lengths = np.array([len(caption) for caption in captions], dtype=np.int32)
        word_ids = np.zeros((len(captions), max(lengths, default=0)), dtype=np.int32)
        for row, caption in zip(word_ids, captions, strict=True):
            row[: len(caption)] = caption
        return cls(np.array(list(image_ids), dtype=np.int64), word_ids, lengths)

    def some(self, rows: npt.NDArray[np.int64]) -> Captions:
        """Return the captions in these rows, as wide as all of them are."""
        return Captions(self.image_ids[rows], self.word_ids[rows], self.lengths[rows])


@dataclass(frozen=True)
class StoredRelevance:
    """The explanation of one caption of T words, in float32."""

    image_id: int
    word_ids: tuple[int, ...]
    grid: Tensor
    """(T, h, w); of regions (T, N, 1), no raster"""
    words: Tensor | None
    """(T, T)"""
    pixels: Tensor | None
    """(T, m, m)"""
    conservation: dict[str, Tensor]
    """(T,) each"""
    boxes: Tensor | None = None
    """(N, 4) of regions"""


Fields = dict[str, npt.NDArray[Any]]
"""What is stored of some captions, by the name of the dataset."""


def write_relevance(
    folder: Path,
    captions: Captions,
    batches: Iterable[tuple[npt.NDArray[np.int64], Explanation]],
    *,
    map_size: int,
    attributes: dict[str, Any],
    params: Any,
    inputs: dict[str, Path],
) -> None:
    """Write explanations as they come; the store appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Where ``relevance.h5`` and its manifest go.
    captions : Captions
        All R captions, in the order of the store.
    batches : iterable of (rows, Explanation)
        `rows` says which of the captions were explained; together they must be all.
    map_size : int
        Width and height of stored pixel maps; smaller ones are kept as they are.
    attributes : dict
        ``explainer``, ``title``, ``control``, ``split``, ``grid`` (h, w), ``image_size``.
    params, inputs
        For the manifest.

    Notes
    -----
    Values beyond the range of float16 are cut to it and counted in the manifest as
    ``saturated``; values that are not finite raise `CapscopeError`.
    """
    fields = ((rows, _fields(explanation, map_size)) for rows, explanation in batches)
    _write(folder, captions, fields, 0, attributes, params, inputs)


def join_relevance(
    folder: Path,
    captions: Captions,
    parts: Sequence[tuple[Path, Sequence[npt.NDArray[np.int64]]]],
    *,
    attributes: dict[str, Any],
    params: Any,
    inputs: dict[str, Path],
) -> None:
    """Write the store that `write_relevance` would have made of all batches, from several stores.

    Parameters
    ----------
    parts : sequence of (Path, batches)
        A store, and for each batch of it, in its order, the rows that these captions have here.
    folder, captions, attributes, params, inputs
        As in `write_relevance`.
    """
    stores = [read_manifest(part, KIND, check_hashes=True) for part, _ in parts]
    saturated = sum(manifest["saturated"] for manifest in stores)
    _write(folder, captions, _stored(parts), saturated, attributes, params, inputs)


def _stored(
    parts: Sequence[tuple[Path, Sequence[npt.NDArray[np.int64]]]],
) -> Iterator[tuple[npt.NDArray[np.int64], Fields]]:
    """Yield the batches of several stores."""
    for folder, batches in parts:
        with h5py.File(folder / FILE, "r", locking=False) as file:
            names = [name for name in file if name not in (*Captions._fields, "conservation")]
            names += [f"conservation/{place}" for place in file.get("conservation", ())]
            first = 0
            for rows in batches:
                some = slice(first, first := first + len(rows))
                yield rows, {name: file[name][some] for name in names}


def _write(
    folder: Path,
    captions: Captions,
    batches: Iterable[tuple[npt.NDArray[np.int64], Fields]],
    saturated: int,
    attributes: dict[str, Any],
    params: Any,
    inputs: dict[str, Path],
) -> None:
    """Write what is stored of all captions; `saturated` values were cut before."""
    written = np.zeros(len(captions.image_ids), dtype=bool)
    with atomic_path(folder / FILE) as temporary:
        with h5py.File(temporary, "w", locking=False) as file:
            file.attrs.update(attributes)
            for name, values in captions._asdict().items():
                file[name] = values
            for rows, fields in batches:
                for name, values in sorted(fields.items()):  # the file is laid out in this order
                    if not np.isfinite(values).all():
                        images = captions.image_ids[rows].tolist()
                        raise CapscopeError(
                            f"{attributes['explainer']}: the relevance {name!r} of images "
                            f"{images} is not finite; raise explanations.epsilon"
                        )
                    single = name == "boxes" or name.startswith("conservation/")
                    if not single:
                        saturated += int((np.abs(values) > LARGEST).sum())
                        values = np.clip(values, -LARGEST, LARGEST)
                    if name not in file:
                        shape = _shape(name, values, captions)
                        file.create_dataset(name, shape, np.float32 if single else np.float16)
                    for row, value in zip(rows, values, strict=True):
                        file[name][(row, *map(slice, value.shape))] = value
                written[rows] = True
        if not written.all():
            raise AssertionError("some captions were not explained")
    write_manifest(
        folder,
        KIND,
        params=params,
        inputs=inputs,
        **attributes,
        captions=len(written),
        words=int(captions.lengths.sum()),
        saturated=saturated,
    )


def _fields(explanation: Explanation, map_size: int) -> Fields:
    """Return what is stored of an explanation, by name."""
    fields = {"grid": explanation.grid}
    if explanation.words is not None:
        fields["words"] = explanation.words
    if explanation.pixels is not None:
        size = min(map_size, explanation.pixels.shape[-1])
        fields["pixels"] = sum_pool(explanation.pixels, size, size)
    if explanation.boxes is not None:
        fields["boxes"] = explanation.boxes
    fields |= {f"conservation/{name}": sums for name, sums in explanation.conservation.items()}
    return {name: tensor.numpy() for name, tensor in fields.items()}


def _shape(name: str, values: npt.NDArray[Any], captions: Captions) -> tuple[int, ...]:
    """Return the shape of a dataset; words are padded to the longest caption."""
    count, longest = captions.word_ids.shape
    if name == "boxes":
        return (count, *values.shape[1:])
    return (count, longest, *((longest,) if name == "words" else values.shape[2:]))


class RelevanceStore:
    """Read access to a relevance store; the manifest is verified first."""

    def __init__(self, folder: Path) -> None:
        self.manifest = read_manifest(folder, KIND)
        self.folder = folder
        self._file = h5py.File(folder / FILE, "r", locking=False)
        self.explainer = str(self._file.attrs["explainer"])
        self.split = str(self._file.attrs["split"])
        height, width = self._file.attrs["grid"]
        self.grid = (int(height), int(width))
        self.image_size = int(self._file.attrs["image_size"])
        self.image_ids: npt.NDArray[np.int64] = self._file["image_ids"][:]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, row: int) -> StoredRelevance:
        if not 0 <= row < len(self):
            raise IndexError(row)
        length = int(self._file["lengths"][row])

        def read(name: str) -> Tensor:
            return torch.from_numpy(self._file[name][row, :length].astype(np.float32))

        return StoredRelevance(
            image_id=int(self.image_ids[row]),
            word_ids=tuple(self._file["word_ids"][row, :length].tolist()),
            grid=read("grid").reshape(length, *self.grid),
            words=read("words")[:, :length] if "words" in self._file else None,
            pixels=read("pixels") if "pixels" in self._file else None,
            conservation={
                place: read(f"conservation/{place}") for place in self._file.get("conservation", ())
            },
            boxes=torch.from_numpy(self._file["boxes"][row]) if "boxes" in self._file else None,
        )

    def captions(self, count: int | None = None) -> Captions:
        """Return the explained captions, or the first `count` of them."""
        return Captions(*(self._file[name][:count] for name in Captions._fields))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> RelevanceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
