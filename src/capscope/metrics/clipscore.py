"""CLIPScore and RefCLIPScore (Hessel et al. 2021): does the caption fit the picture.

CLIPScore asks no reference: it is 2.5 times the cosine of image and caption in CLIP's space, 0 if
that is negative (equation 1). RefCLIPScore is the harmonic mean of it and of the caption's highest
cosine with a reference (equation 2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from tqdm import tqdm

from capscope.data.images import map_ahead, read_image
from capscope.metrics.pretrained import device, load, provenance
from capscope.metrics.statistics import Measure, Scores, divide, mean
from capscope.metrics.task import Task, UnavailableError

WEIGHT = 2.5
PROMPT = "A photo depicts "
_KEY = "metrics.clipscore_options.model"

Item = TypeVar("Item")


class ClipScore:
    """Scores captions with a CLIP model; images and texts are embedded once for all captioners.

    Parameters
    ----------
    model : str
        Folder of a CLIP model with its tokeniser and image processor, or name on the hub.
    batch_size : int
        Images or texts at a time.
    workers : int
        Threads that read images.

    Raises
    ------
    UnavailableError
        The model is not there.
    """

    names = ("CLIPScore", "RefCLIPScore")

    def __init__(self, model: str, *, batch_size: int = 64, workers: int = 2) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        self._device = device()
        self._model: Any = load(CLIPModel.from_pretrained, model, _KEY, dtype=torch.float32)
        self._model.eval().to(self._device)
        self._tokenizer: Any = load(AutoTokenizer.from_pretrained, model, _KEY)
        # CLIP was trained on images resized by Pillow; torchvision's resizing moves the score.
        self._processor: Any = load(AutoImageProcessor.from_pretrained, model, _KEY, backend="pil")
        self._longest = self._model.config.text_config.max_position_embeddings
        self._batch_size = batch_size
        self._workers = workers
        packages = ("transformers", "torch", "pillow", "numpy")
        self._note = provenance(model, self._model, *packages) + ", float32"

    def measures(self, task: Task) -> list[dict[str, Measure]]:
        """Score every row of a task; its raw texts, as they were written.

        An empty caption scores 0: CLIP would be shown the prompt alone.

        Raises
        ------
        UnavailableError
            There are no image files.
        CapscopeError
            An image cannot be read.
        """
        if not any(path.is_file() for path in task.images):
            raise UnavailableError(
                f"none of the {len(task.images)} image files is there, such as {task.images[0]}"
            )
        texts = task.raw
        empty = sum(not text.strip() for row in texts.rows for text in row)
        if empty:
            warnings.warn(f"CLIPScore of {empty} empty captions is set to 0", stacklevel=2)
        images = self.embed_images(task.images)
        said = [text for group in (*texts.references, *texts.rows) for text in group]
        known = self.embed_texts(said)
        measured = []
        for row, captions in enumerate(texts.rows):
            ours = torch.stack([known[text] for text in captions])
            fits = WEIGHT * _cosines(images, ours)
            agrees = np.array(
                [
                    _cosines(mine, torch.stack([known[text] for text in theirs])).max()
                    for mine, theirs in zip(ours, task.against(texts, row), strict=True)
                ]
            )
            full = np.array([bool(text.strip()) for text in captions])
            both = np.nan_to_num(divide(2 * fits * agrees, fits + agrees))
            values = (np.where(full, fits, 0.0), np.where(full, both, 0.0))
            pairs = zip(self.names, values, strict=True)
            measured.append({name: mean(value, self._note) for name, value in pairs})
        return measured

    def embed_images(self, paths: Sequence[Path]) -> Tensor:
        """Return the unit vectors (N, D) of images."""
        vectors = []
        prepared = map_ahead(self._prepare, paths, self._workers)
        with tqdm(total=len(paths), desc="CLIPScore", unit="image", delay=2) as progress:
            for batch in _batches(prepared, self._batch_size):
                pixels = torch.stack(batch).to(self._device)
                vectors.append(self._unit(self._model.get_image_features, pixel_values=pixels))
                progress.update(len(batch))
        return torch.cat(vectors)

    def embed_texts(self, texts: Iterable[str]) -> dict[str, Tensor]:
        """Return the unit vector (D,) of each text behind the prompt, cut to CLIP's length."""
        distinct = sorted(set(texts))
        vectors: dict[str, Tensor] = {}
        with tqdm(total=len(distinct), desc="CLIPScore", unit="text", delay=2) as progress:
            for batch in _batches(distinct, self._batch_size):
                tokens = self._tokenizer(
                    [PROMPT + text for text in batch],
                    padding=True,
                    truncation=True,
                    max_length=self._longest,
                    return_tensors="pt",
                ).to(self._device)
                found = self._unit(self._model.get_text_features, **tokens)
                vectors |= zip(batch, found, strict=True)
                progress.update(len(batch))
        return vectors

    def _prepare(self, path: Path) -> Tensor:
        image: Pillow.Image = read_image(path)
        pixels: Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    @torch.no_grad()
    def _unit(self, features: Callable[..., Any], **inputs: Tensor) -> Tensor:
        vectors: Tensor = features(**inputs).pooler_output
        return torch.nn.functional.normalize(vectors, dim=-1).cpu()


def _cosines(first: Tensor, second: Tensor) -> Scores:
    """Return the cosines of unit vectors (..., D), 0 in place of negative ones."""
    cosines: Scores = (first * second).sum(dim=-1).clamp(min=0).double().numpy()
    return cosines


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
