"""Explaining the generated captions of a split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
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
from capscope.explain.store import (
    INDEX,
    INDEX_KIND,
    Captions,
    join_relevance,
    write_relevance,
)
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
    write_manifest,
)
from capscope.models.checkpoint import Run, load_run
from capscope.shards import Shard, all_shards, check_shards, open_shards, remove_shards

SHARD_KIND = "relevance-shard"
Rows = npt.NDArray[np.int64]
NONE: Rows = np.empty(0, np.int64)
Batch = tuple[Rows, Tensor | None, Features]
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
    shard: Shard | None = None,
    gather: int = 0,
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
    shard : Shard, optional
        Explain this share of the captions only, and leave their stores in ``<split>.shards``.
    gather : int
        Join so many shards instead of explaining; 0: explain.
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
    products = {"run": run_dir, "data": data_dir, "features": features_dir, "captions": decoded}
    inputs = {name: record_of(product) for name, product in products.items()}
    place = (out / INDEX.format(split)).with_suffix(".shards")
    batches = in_batches(captions, settings["batch_size"])
    parts: list[tuple[Path, Sequence[Rows]]] = []
    times: dict[str, Stopwatch] = defaultdict(Stopwatch)
    if shard is not None:
        out, batches = place / str(shard), shard.part(batches)
        captions, batches = captions.some(np.concatenate([NONE, *batches])), renumbered(batches)
    elif gather:
        manifests = open_shards(place, gather, SHARD_KIND)
        check_shards(place, manifests[0], settings, inputs)
        parts = [(place / str(one), one.part(batches)) for one in all_shards(gather)]
        for name, time in (each for manifest in manifests for each in manifest["times"].items()):
            times[name] += Stopwatch(**time)
    shared = {key: settings[key] for key in ("epsilon", "steps", "precision", "parity")}
    index: dict[str, dict[str, str]] = {"explainers": {}, "left_out": {}}
    for name in explainers:
        kind = explainer_class(name)
        unfit = kind.unfit(subject)
        if unfit is not None:
            index["left_out"][name] = unfit
            continue
        chosen = {**shared, "lime": settings["lime"]} if issubclass(kind, LIME) else shared
        folder = out / name / split
        (folder / MANIFEST).unlink(missing_ok=True)
        about: dict[str, Any] = {
            "attributes": {
                "explainer": name,
                "title": kind.title,
                "sign": kind.sign,
                "control": kind.control,
                "split": split,
                "grid": features.grid,
                "image_size": subject.image_size or settings["map_size"],
            },
            "params": {key: settings[key] for key in ("images", "map_size", *chosen)},
            "inputs": {key: inputs[key] for key in ("run", "captions")},
        }
        if parts:
            stores = [(part / name / split, rows) for part, rows in parts if rows]
            join_relevance(folder, captions, stores, **about)
        else:
            method, read = kind(subject, **chosen), (captions, dataset, features, settings)
            found = explain_captions(method, batches, *read, times[name])
            write_relevance(folder, captions, found, map_size=settings["map_size"], **about)
        index["explainers"][name] = sha256_of(folder / MANIFEST)
    write_json(out / INDEX.format(split), index)
    if shard is not None:
        spent = {name: asdict(time) for name, time in times.items()}
        made = {"params": settings, "inputs": inputs, "folders": list(index["explainers"])}
        write_manifest(out, SHARD_KIND, times=spent, **made)
        return
    seal_file(out / INDEX.format(split), INDEX_KIND, params=settings, inputs=inputs, split=split)
    remove_shards(place)
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


def in_batches(captions: Captions, size: int) -> Sequence[Rows]:
    """Return the rows of captions that are explained at once, those of similar length together."""
    order = np.argsort(captions.lengths, kind="stable")
    return [order[first : first + size] for first in range(0, len(order), size)]


def renumbered(batches: Sequence[Rows]) -> Sequence[Rows]:
    """Return batches of the same sizes whose rows are counted from 0 on."""
    ends = np.cumsum([0, *map(len, batches)])
    return [np.arange(first, last) for first, last in pairwise(ends)]


def explain_captions(
    method: Explainer,
    batches: Sequence[Rows],
    captions: Captions,
    dataset: Dataset,
    store: FeatureStore,
    settings: Mapping[str, Any],
    stopwatch: Stopwatch,
) -> Iterator[tuple[Rows, Explanation]]:
    """Yield the rows of each batch and their explanations."""
    if method.subject.image_size is None:
        read = _stored(captions, store, batches)
    else:
        read = _seen(method.subject, captions, dataset, batches)
    with tqdm(total=sum(map(len, batches)), desc=method.title, unit="caption") as progress:
        for rows, images, features in read:
            lengths = torch.from_numpy(captions.lengths[rows]).long()
            word_ids = torch.from_numpy(captions.word_ids[rows]).long()[:, : int(lengths.max())]
            inputs = method.subject.inputs(word_ids)
            with stopwatch.explaining(int(lengths.sum())):
                found = method.explain(images, features, inputs, lengths)
            yield rows, found.painted(features, settings["map_size"])
            progress.update(len(rows))


def _stored(captions: Captions, store: FeatureStore, batches: Sequence[Rows]) -> Iterator[Batch]:
    """Read features from the store."""
    for rows in batches:
        yield rows, None, store.read(captions.image_ids[rows])


def _seen(
    subject: Subject, captions: Captions, dataset: Dataset, batches: Sequence[Rows]
) -> Iterator[Batch]:
    """Read and prepare images in threads."""

    def prepare(row: int) -> Tensor:
        image = dataset.by_id(int(captions.image_ids[row]))
        return subject.network.preprocess(read_image(dataset.path(image)))

    workers = max(1, len(os.sched_getaffinity(0)))
    every = map_ahead(prepare, [row for rows in batches for row in rows.tolist()], workers)
    for rows in batches:
        images = torch.stack([next(every) for _ in rows])
        yield rows, images, subject.look(images)
