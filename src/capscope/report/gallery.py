"""The gallery: images with all captions of all runs, and what every explainer says of each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capscope.data.annotations import Dataset
from capscope.data.images import read_image
from capscope.files import check_file, read_json, read_manifest
from capscope.report.portrait import MARKS, about, caption_data
from capscope.report.results import Results, RunResults
from capscope.report.views import View

SCORES = ("CIDEr", "METEOR", "CHAIR-i")
"""Scores of a caption that stand beside it."""


class Gallery:
    """Chosen images, their captions and explanations; files are opened as images are asked for.

    Parameters
    ----------
    results : Results
    dataset : Dataset
    images : int
        How many in all, shared among the splits: the first explained ones, and as many of the rest
        whose captions hallucinate most, where that was measured.
    """

    def __init__(self, results: Results, dataset: Dataset, images: int) -> None:
        self.results = results
        self.dataset = dataset
        self.explainers = [name for name in results.titles if name not in results.controls]
        splits = {path.stem for run in results.runs for path in run.folder.glob("relevance/*.json")}
        in_order = sorted(splits, key=lambda split: (split == "shift", split))
        shares = [len(part) for part in np.array_split(np.arange(images), max(1, len(splits)))]
        self.splits = {
            split: _Split(self, split, share)
            for split, share in zip(in_order, shares, strict=False)
        }

    def about(self) -> dict[str, Any]:
        """Return what images name by number."""
        return about(
            [run.title for run in self.results.runs],
            [self.results.titles[name] for name in self.explainers],
        )

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any]]]:
        """Yield the pixels (H, W, 3) of each image, and its captions and explanations."""
        for split in self.splits.values():
            yield from split

    def __len__(self) -> int:
        return sum(len(split.chosen) for split in self.splits.values())


def entry(image: dict[str, Any]) -> dict[str, Any]:
    """Return what the list of the gallery holds of an image: what is searched."""
    return {
        "id": image["id"],
        "name": image["name"],
        "split": image["split"],
        "thumbnail": image["picture"],
        "size": image["size"],
        "said": [
            [
                caption["run"],
                caption["words"],
                "".join(MARKS.get(verdict, "-") for verdict in caption["verdicts"]),
            ]
            for caption in image["captions"]
        ],
    }


class _Split:
    """The part of the gallery that is of one split."""

    def __init__(self, gallery: Gallery, split: str, images: int) -> None:
        self.gallery, self.split = gallery, split
        self.runs = [
            (number, run)
            for number, run in enumerate(gallery.results.runs)
            if (run.folder / f"relevance/{split}.json").exists()
        ]
        self.scores = {number: self._scores_of(run) for number, run in self.runs}
        with ExitStack() as stack:
            opened = [self._stores(stack, run) for _, run in self.runs]
            ids = [set(stores[0][1].rows) for stores in opened]
            explained = [
                image_id
                for image_id in opened[0][0][1].rows
                if all(image_id in some for some in ids)
            ]
        self.chosen = self._choose(explained, images)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], dict[str, Any]]]:
        with ExitStack() as stack:
            opened = {number: self._stores(stack, run) for number, run in self.runs}
            decoded = {number: self._decoded(run) for number, run in self.runs}
            words = {number: _verdicts(run.words, self.split) for number, run in self.runs}
            for image_id in self.chosen:
                image = self.gallery.dataset.by_id(image_id)
                captions = []
                for number, run in self.runs:
                    vocabulary = run.info["vocabulary"]["words"]
                    texts = [vocabulary[k] for k in opened[number][0][1].words(image_id)]
                    captions.append(
                        caption_data(
                            texts,
                            np.exp(decoded[number][image_id]["log_probs"]),
                            {place: store.view(image_id) for place, store in opened[number]},
                            run=number,
                            verdicts=words[number].get(image_id, {}),
                            scores=self._shown_scores(number, image_id),
                        )
                    )
                pixels = np.asarray(read_image(self.gallery.dataset.path(image)))
                yield (
                    pixels,
                    {
                        "id": image_id,
                        "name": f"image {image_id}",
                        "split": self.split,
                        "size": [pixels.shape[1], pixels.shape[0]],
                        "references": list(image.references),
                        "captions": captions,
                    },
                )

    def _stores(self, stack: ExitStack, run: RunResults) -> list[tuple[int, _Store]]:
        """Open the stores of a run by the numbers of their explainers; controls are left out."""
        named = read_json(run.folder / f"relevance/{self.split}.json")["explainers"]
        titles = self.gallery.results.titles
        return [
            (number, stack.enter_context(_Store(run.folder, name, self.split, titles[name])))
            for number, name in enumerate(self.gallery.explainers)
            if name in named
        ]

    def _decoded(self, run: RunResults) -> dict[int, dict[str, Any]]:
        path = run.folder / f"decoded/{self.split}.json"
        check_file(path, "captions")
        entries = read_json(path)
        return {one["image_id"]: one for one in entries}

    def _scores_of(self, run: RunResults) -> pd.DataFrame:
        rows = self.gallery.results.per_image.query(
            "system == @run.system and stage == @run.stage and split == @self.split"
        )
        return rows[rows["seed"].astype("string") == str(run.seed)].set_index("image_id")

    def _shown_scores(self, number: int, image_id: int) -> list[tuple[str, str]]:
        scores = self.scores[number]
        return [
            (name, f"{scores[name][image_id]:.2f}")
            for name in SCORES
            if name in scores and image_id in scores.index and np.isfinite(scores[name][image_id])
        ]

    def _choose(self, explained: Sequence[int], images: int) -> list[int]:
        """Choose half from the start, half by hallucination, where it is measured."""
        chosen = list(explained[: images - images // 2])
        rest = list(explained[len(chosen) :])
        measured = [s["CHAIR-i"] for s in self.scores.values() if "CHAIR-i" in s]
        if measured:
            invented = pd.concat(measured, axis=1).mean(axis=1).fillna(0)
            rest.sort(key=lambda image_id: -invented.get(image_id, 0.0))
        return chosen + rest[: images - len(chosen)]


def _verdicts(words: pd.DataFrame, split: str) -> dict[int, dict[int, str]]:
    """Return by image the verdict of each word that has one, by its position."""
    found: dict[int, dict[int, str]] = {}
    if len(words):
        for row in words[words["split"] == split].to_dict("records"):
            found.setdefault(int(row["image_id"]), {})[int(row["position"])] = str(row["verdict"])
    return found


class _Store:
    """What the gallery reads of a relevance store."""

    def __init__(self, run: Path, explainer: str, split: str, title: str) -> None:
        self.title = title
        folder = run / "relevance" / explainer / split
        read_manifest(folder, "relevance")
        self.file = h5py.File(folder / "relevance.h5", "r")
        self.side = tuple(int(side) for side in self.file.attrs["grid"])
        ids = self.file["image_ids"][:].tolist()
        self.rows = {int(image_id): row for row, image_id in enumerate(ids)}

    def __enter__(self) -> _Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def words(self, image_id: int) -> list[int]:
        """Return the ids of the explained words."""
        row = self.rows[image_id]
        found: list[int] = self.file["word_ids"][row, : int(self.file["lengths"][row])].tolist()
        return found

    def view(self, image_id: int) -> View:
        """Return what the explainer says of the words of an image's caption."""
        row, file = self.rows[image_id], self.file
        length = int(file["lengths"][row])
        name = "pixels" if "pixels" in file else "grid"
        maps = file[name][row, :length].astype(np.float64)
        maps = maps.reshape(length, *(maps.shape[1:] if name == "pixels" else self.side))
        # Input 0 is the start of the caption; input i is word i - 1.
        before = file["words"][row, :length, 1:length].astype(float) if "words" in file else None
        regions = boxes = None
        if "boxes" in file:
            boxes = file["boxes"][row]
            regions = file["grid"][row, :length].astype(np.float64)
        return View(self.title, maps, before, regions, boxes)
