"""The gallery: captions, with the picture part and the preceding words behind each word."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as Pillow

from capscope.data.annotations import Dataset
from capscope.data.images import read_image
from capscope.files import read_json
from capscope.report.results import Results, RunResults
from capscope.report.views import View

PICTURE, PANEL = 256, 144
"""Widths in pixels of the image and of a word's panel."""


@dataclass(frozen=True)
class Influence:
    """A preceding word and its share in a word, from -1 to 1 of the strongest."""

    word: str
    strength: float


@dataclass(frozen=True)
class Word:
    """A word of a caption with its heat map."""

    text: str
    probability: float
    panel: str
    """Data URL."""
    before: tuple[Influence, ...]


@dataclass(frozen=True)
class Strip:
    """One explainer's view of a caption."""

    title: str
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Card:
    """One image with its caption, explained."""

    name: str
    picture: str
    """Data URL."""
    caption: str
    references: tuple[str, ...]
    scores: tuple[tuple[str, str], ...]
    strips: tuple[Strip, ...]
    """The first is shown, the others on demand."""
    open: bool = False
    """Whether the others are shown too."""


def cards(
    results: Results, run: RunResults, dataset: Dataset, vocabulary: Sequence[str], images: int
) -> dict[str, list[Card]]:
    """Return the cards of each split, `images` in all; explained images in data set order.

    Half of them are the captions that hallucinate most, where there is a measure of it.
    """
    splits = [path.stem for path in run.folder.glob("relevance/*.json")]
    splits.sort(key=lambda split: (split == "shift", split))
    shares = [len(part) for part in np.array_split(np.arange(images), max(1, len(splits)))]
    return {
        split: list(_of_split(results, run, dataset, vocabulary, split, share))
        for split, share in zip(splits, shares, strict=False)
    }


def _of_split(
    results: Results,
    run: RunResults,
    dataset: Dataset,
    vocabulary: Sequence[str],
    split: str,
    images: int,
) -> Iterator[Card]:
    explainers = read_json(run.folder / f"relevance/{split}.json")["explainers"]
    stores = [_Store(run.folder / f"relevance/{name}/{split}", results) for name in explainers]
    shown = [store for store in stores if not store.control]
    decoded = {
        entry["image_id"]: entry for entry in read_json(run.folder / f"decoded/{split}.json")
    }
    scores = results.per_image.query(
        "system == @run.system and stage == @run.stage and split == @split"
    )
    scores = scores[scores["seed"].astype("string") == str(run.seed)].set_index("image_id")
    for image_id in _chosen(shown[0].image_ids, scores, images):
        image = dataset.by_id(image_id)
        pixels = np.asarray(read_image(dataset.path(image)))
        probabilities = np.exp(decoded[image_id]["log_probs"])
        yield Card(
            name=f"image {image_id}",
            picture=data_url(pixels, PICTURE),
            caption=decoded[image_id]["caption"],
            references=image.references,
            scores=tuple(
                (name, f"{scores[name][image_id]:.2f}")
                for name in ("CIDEr", "METEOR", "CHAIR-i")
                if name in scores and np.isfinite(scores[name][image_id])
            ),
            strips=tuple(
                store.strip(image_id, pixels, vocabulary, probabilities) for store in shown
            ),
        )


def _chosen(explained: Sequence[int], scores: pd.DataFrame, images: int) -> list[int]:
    """Choose images to show: half from the start, half by hallucination, where it is measured."""
    chosen = list(explained[: images - images // 2])
    rest = [image_id for image_id in explained if image_id not in set(chosen)]
    if "CHAIR-i" in scores:
        invented = scores["CHAIR-i"].fillna(0)
        rest.sort(key=lambda image_id: -invented[image_id])
    return chosen + rest[: images - len(chosen)]


class _Store:
    """What the gallery reads of a relevance store."""

    def __init__(self, folder: Path, results: Results) -> None:
        manifest = read_json(folder / "manifest.json")
        self.title = results.titles[manifest["explainer"]]
        self.control = bool(manifest["control"])
        self.path = folder / "relevance.h5"
        with h5py.File(self.path, "r") as file:
            self.image_ids = [int(image_id) for image_id in file["image_ids"][:]]
            self.side = tuple(int(side) for side in file.attrs["grid"])
        self.rows = {image_id: row for row, image_id in enumerate(self.image_ids)}

    def strip(
        self,
        image_id: int,
        pixels: NDArray[np.uint8],
        vocabulary: Sequence[str],
        probabilities: NDArray[np.float64],
    ) -> Strip:
        row = self.rows[image_id]
        with h5py.File(self.path, "r") as file:
            length = int(file["lengths"][row])
            texts = [vocabulary[word_id] for word_id in file["word_ids"][row, :length]]
            name = "pixels" if "pixels" in file else "grid"
            maps = file[name][row, :length].astype(np.float64)
            before = file["words"][row, :length].astype(np.float64) if "words" in file else None
            regions = boxes = None
            if "boxes" in file:
                boxes = file["boxes"][row]
                regions = file["grid"][row, :length].astype(np.float64)
        maps = maps.reshape(length, *(maps.shape[1:] if name == "pixels" else self.side))
        if before is not None:
            # Input 0 is the start of the caption; input i is word i - 1.
            before = before[:, 1:length]
        view = View(self.title, maps, before, regions, boxes)
        return strip_of(view, pixels, texts, probabilities)


def strip_of(
    view: View,
    pixels: NDArray[np.uint8],
    texts: Sequence[str],
    probabilities: NDArray[np.float64],
) -> Strip:
    """Draw a panel of a view for each of T words over the image (H, W, 3)."""
    words = []
    for position, text in enumerate(texts):
        influences = tuple(
            Influence(word, round(float(share), 2))
            for word, share in zip(texts, view.influences(position), strict=False)
        )
        panel = data_url(view.panel(pixels, position), PANEL)
        words.append(Word(text, float(probabilities[position]), panel, influences))
    return Strip(view.title, tuple(words))


def data_url(pixels: NDArray[np.uint8], width: int) -> str:
    """Return an image, scaled to a width, as a WebP data URL."""
    picture = Pillow.fromarray(pixels)
    height = max(1, round(picture.height * width / picture.width))
    stream = io.BytesIO()
    resized = picture.resize((width, height), Pillow.Resampling.LANCZOS)
    resized.save(stream, format="WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
