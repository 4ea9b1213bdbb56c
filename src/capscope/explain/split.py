"""Explaining the generated captions of a split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from capscope.data.annotations import Dataset, open_dataset
from capscope.data.images import map_ahead, read_image
from capscope.decoding.captions import CAPTIONS_KIND
from capscope.errors import CapscopeError
from capscope.explain import explainer_class
from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.lime import LIME
from capscope.explain.stopwatch import Stopwatch
from capscope.explain.store import INDEX, INDEX_KIND, Captions, write_relevance
from capscope.explain.subject import Subject
from capscope.features.extractor import load_extractor
from capscope.features.store import FeatureStore
from capscope.features.visual import Features
from capscope.files import (
    MANIFEST,
    check_file,
    read_json,
    record_of,
    seal_file,
    sha256_of,
    write_json,
)
from capscope.models.checkpoint import Run, load_run

Batch = tuple[npt.NDArray[np.int64], Tensor | None, Features]
"""Rows of captions, their preprocessed images (b, 3, S, S) if these lead to pixels, features."""


def explain_split(
    run_dir: Path,
    data_dir: Path,
    features_dir: Path,
    out: Path,
    params: dict[str, Any],
    *,
    split: str,
    explainers: Sequence[str],
    decoded: Path | None = None,
    timing: Path | None = None,
) -> None:
    """Explain the captions of the first ``explanations.images`` images of a split.

    With a network behind the grid, its pixels are explained. Without (regions, features from
    elsewhere), explanations end at the stored features and are painted over their boxes.

    Parameters
    ----------
    run_dir, data_dir, features_dir : Path
        The run, its data set, and features of the kind that it was trained with.
    out : Path
        Gets ``<explainer>/<split>/`` with ``relevance.h5`` and its manifest, and at last the index
        ``<split>.json``: the explainers with hashes of their manifests, and those left out because
        they do not fit the captioner, with the reason.
    params : dict
    split : str
    explainers : sequence of str
        Keys of `capscope.explain.EXPLAINERS`.
    decoded : Path, optional
        The captions; by default ``decoded/<split>.json`` of the run.
    timing : Path, optional
        Gets the time that each explainer took, as JSON. It is no result: it differs each time.
    """
    settings = params["explanations"]
    decoded = decoded or run_dir / "decoded" / f"{split}.json"
    run, subject = open_subject(run_dir, features_dir)
    features = FeatureStore.open(features_dir)
    dataset = open_dataset(data_dir, params)
    captions = read_captions(decoded, run, settings["images"])
    for image_id in captions.image_ids.tolist():
        if dataset.by_id(image_id).split != split:
            raise CapscopeError(f"{decoded}: image {image_id} is not of the split {split}")
    shared = {key: settings[key] for key in ("epsilon", "steps", "precision", "parity")}
    index: dict[str, dict[str, str]] = {"explainers": {}, "left_out": {}}
    times: dict[str, Stopwatch] = {}
    for name in explainers:
        kind = explainer_class(name)
        unfit = kind.unfit(subject)
        if unfit is not None:
            index["left_out"][name] = unfit
            continue
        chosen = {**shared, "lime": settings["lime"]} if issubclass(kind, LIME) else shared
        folder, times[name] = out / name / split, Stopwatch()
        (folder / MANIFEST).unlink(missing_ok=True)
        write_relevance(
            folder,
            captions,
            explain_captions(
                kind(subject, **chosen), captions, dataset, features, settings, times[name]
            ),
            map_size=settings["map_size"],
            attributes={
                "explainer": name,
                "title": kind.title,
                "sign": kind.sign,
                "control": kind.control,
                "split": split,
                "grid": features.grid,
                "image_size": subject.image_size or settings["map_size"],
            },
            params={key: settings[key] for key in ("images", "map_size", *chosen)},
            inputs={"run": record_of(run_dir), "captions": record_of(decoded)},
        )
        index["explainers"][name] = sha256_of(folder / MANIFEST)
    write_json(out / INDEX.format(split), index)
    products = {"run": run_dir, "data": data_dir, "features": features_dir, "captions": decoded}
    inputs = {name: record_of(product) for name, product in products.items()}
    seal_file(out / INDEX.format(split), INDEX_KIND, params=settings, inputs=inputs, split=split)
    if timing is not None:
        write_json(timing, {name: time.to_json() for name, time in times.items()})


def open_subject(run_dir: Path, features_dir: Path | None = None) -> tuple[Run, Subject]:
    """Load a run with the extractor that training put beside it.

    If `features_dir` is given, its features must be of the kind that the run was trained with.
    """
    run = load_run(run_dir)
    if features_dir is not None:
        run.check_features(FeatureStore.open(features_dir))
    return run, Subject(run.captioner, run.vocabulary, load_extractor(run_dir))


def read_captions(path: Path, run: Run, images: int) -> Captions:
    """Read the first `images` generated captions that have any word."""
    check_file(path, CAPTIONS_KIND)
    found = [entry for entry in read_json(path) if entry["word_ids"]][:images]
    if not found:
        raise CapscopeError(f"{path} holds no caption with a word: train the run for longer")
    size = len(run.vocabulary)
    for entry in found:
        if not all(0 <= word_id < size for word_id in entry["word_ids"]):
            raise CapscopeError(
                f"{path}: image {entry['image_id']} has a word id outside the vocabulary of "
                f"{run.folder}: decode again"
            )
    ids = [entry["image_id"] for entry in found]
    return Captions.of(ids, [entry["word_ids"] for entry in found])


def explain_captions(
    method: Explainer,
    captions: Captions,
    dataset: Dataset,
    store: FeatureStore,
    settings: Mapping[str, Any],
    stopwatch: Stopwatch,
) -> Iterator[tuple[npt.NDArray[np.int64], Explanation]]:
    """Yield rows of captions and their explanations, captions of similar length together."""
    order = np.argsort(captions.lengths, kind="stable")
    size = settings["batch_size"]
    if method.subject.image_size is None:
        batches = _stored(captions, store, order, size)
    else:
        batches = _seen(method.subject, captions, dataset, order, size)
    with tqdm(total=len(order), desc=method.title, unit="caption") as progress:
        for rows, images, features in batches:
            lengths = torch.from_numpy(captions.lengths[rows]).long()
            word_ids = torch.from_numpy(captions.word_ids[rows]).long()[:, : int(lengths.max())]
            inputs = method.subject.inputs(word_ids)
            with stopwatch.explaining(int(lengths.sum())):
                found = method.explain(images, features, inputs, lengths)
            yield rows, found.painted(features, settings["map_size"])
            progress.update(len(rows))


def _stored(
    captions: Captions, store: FeatureStore, order: npt.NDArray[np.int64], size: int
) -> Iterator[Batch]:
    """Read features from the store, in the given order of rows."""
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        yield rows, None, store.read(captions.image_ids[rows])


def _seen(
    subject: Subject,
    captions: Captions,
    dataset: Dataset,
    order: npt.NDArray[np.int64],
    size: int,
) -> Iterator[Batch]:
    """Read and prepare images in threads, in the given order of rows."""

    def prepare(row: int) -> Tensor:
        image = dataset.by_id(int(captions.image_ids[row]))
        return subject.network.preprocess(read_image(dataset.path(image)))

    batch: list[Tensor] = []
    workers = max(1, len(os.sched_getaffinity(0)))
    for position, pixels in enumerate(map_ahead(prepare, order.tolist(), workers), 1):
        batch.append(pixels)
        if len(batch) == size or position == len(order):
            images = torch.stack(batch)
            yield order[position - len(batch) : position], images, subject.look(images)
            batch = []
