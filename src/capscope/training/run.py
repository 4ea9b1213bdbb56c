"""``capscope train``: from finished folders of data to a finished run."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capscope.data.annotations import Dataset, open_dataset
from capscope.data.captions import EncodedCaptions, open_captions
from capscope.data.vocabulary import Vocabulary
from capscope.decoding.captions import caption_split
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.files import (
    MANIFEST,
    digest,
    read_json,
    read_manifest,
    sha256_of,
    software,
    write_json,
    write_manifest,
    write_text,
    writing,
)
from capscope.metrics.cider import CiderD
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import INFO_FILE, MODEL_FILE
from capscope.tensors import read_tensors, write_tensors
from capscope.training.batches import Rows, image_of_row
from capscope.training.lock import exclusive
from capscope.training.loop import Corpus, Recipe, Trainer
from capscope.training.state import BEST_FILE, Progress

LAST_FILE = "last.safetensors"
METRICS_FILE = "metrics.csv"
EXTRACTOR_FILES = ("extractor.json", "extractor.safetensors")


def train_run(
    out: Path,
    data_dir: Path,
    vocabulary_dir: Path,
    features_dir: Path,
    params: Mapping[str, Any],
    *,
    system: str,
    stage: str,
    seed: int,
) -> bool:
    """Train one run, or go on with it, and seal its folder.

    Returns False, having done nothing, if `out` already holds this very run.

    Raises
    ------
    CapscopeError
        Unknown system or stage; inputs that do not belong together; an unfinished training of
        other parameters in ``out/state``; another trainer on `out`; divergence.
    """
    settings = _settings(params, system, stage)
    inputs = {"data": data_dir, "vocabulary": vocabulary_dir, "features": features_dir}
    manifests = {name: folder / MANIFEST for name, folder in inputs.items()}
    vocabulary, captions = open_captions(vocabulary_dir)
    dataset, store = open_dataset(data_dir, params), FeatureStore.open(features_dir)
    identity = {
        "system": system,
        "stage": stage,
        "seed": seed,
        "captioner": settings["captioner"],
        "model": settings["model"],
        stage: settings[stage],
    }
    key = digest([identity, {name: sha256_of(path) for name, path in manifests.items()}])
    with writing(out), exclusive(out / "state"):
        if (out / MANIFEST).exists() and read_manifest(out, "run").get("key") == key:
            shutil.rmtree(out / "state")
            return False
        torch.manual_seed(seed)
        recipe = Recipe(**settings[stage])
        config = {
            "vocabulary_size": len(vocabulary),
            "feature_size": store.dim,
            **settings["model"],
        }
        captioner = build(settings["captioner"], **config)
        trainer = Trainer(
            captioner,
            Corpus(captions, _training_rows(dataset, captions, store), vocabulary, store),
            _Validation(dataset, captions, store, vocabulary, recipe),
            recipe,
            seed=seed,
            folder=out,
            key=key,
        )
        progress = trainer.run()
        (out / MANIFEST).unlink(missing_ok=True)
        info = {
            "captioner": settings["captioner"],
            "config": config,
            "system": system,
            "stage": stage,
            "seed": seed,
            "dataset": dataset.name,
            "vocabulary": vocabulary.to_json(),
            "vocabulary_sha256": vocabulary.sha256,
            "extractor": _copy_extractor(features_dir, out),
            "features": store.attributes,
            "params_sha256": digest(identity),
            "software": software(),
            "decoding": params["decoding"],
            "epoch": progress.best_epoch,
            "validation_cider": progress.best_score,
        }
        _write(out, captioner, progress, info)
        write_manifest(out, "run", params=identity, inputs=manifests, key=key)
        shutil.rmtree(out / "state")
    return True


def _settings(params: Mapping[str, Any], system: str, stage: str) -> Mapping[str, Any]:
    if system not in params["systems"]:
        known = ", ".join(params["systems"])
        raise CapscopeError(f"params: no system {system!r} in systems; there are: {known}")
    settings: Mapping[str, Any] = params["systems"][system]
    if stage not in settings["stages"]:
        known = ", ".join(settings["stages"])
        raise CapscopeError(f"params: system {system} has no stage {stage!r}; it has: {known}")
    return settings


def _training_rows(dataset: Dataset, captions: EncodedCaptions, store: FeatureStore) -> Rows:
    """Return the references of the train split; each of its images must have features."""
    ids = [image.id for image in dataset.split("train") if image.id in captions]
    if not ids:
        raise CapscopeError(f"data set {dataset.name} has no encoded reference in its split train")
    store.rows(ids)
    return np.flatnonzero(np.isin(image_of_row(captions), ids))


class _Validation:
    """CIDEr-D of the captions of some validation images, as long as the training's references."""

    def __init__(
        self,
        dataset: Dataset,
        captions: EncodedCaptions,
        store: FeatureStore,
        vocabulary: Vocabulary,
        recipe: Recipe,
    ) -> None:
        images = dataset.split("val")[: recipe.validation_images]
        if not images:
            raise CapscopeError(f"data set {dataset.name} has no images in its split val")
        self.store, self.vocabulary = store, vocabulary
        self.ids = [image.id for image in images]
        store.rows(self.ids)
        self.cider = CiderD([image.tokens for image in images])
        self.settings = {
            "method": "beam",
            "beam": recipe.validation_beam,
            "max_length": captions.labels.shape[1],
            "batch_size": recipe.batch_size,
        }

    def __call__(self, captioner: Captioner) -> dict[str, float]:
        found = caption_split(captioner, self.store, self.ids, self.vocabulary, self.settings)
        captions = [self.vocabulary.decode(h.word_ids).split() for _, h in found]
        return {"cider": float(self.cider.score(captions).mean())}


def _copy_extractor(features_dir: Path, out: Path) -> Any:
    """Take the image network along, so that the run can caption photographs by itself."""
    for name in EXTRACTOR_FILES:
        if not (features_dir / name).exists():
            return None
        shutil.copyfile(features_dir / name, out / name)
    return read_json(features_dir / EXTRACTOR_FILES[0])


def _write(out: Path, captioner: Captioner, progress: Progress, info: dict[str, Any]) -> None:
    """Write the best and the last weights, the log and the description."""
    best = read_tensors(out / "state" / BEST_FILE.format(progress.best_epoch))
    write_tensors(out / MODEL_FILE, best)
    write_tensors(out / LAST_FILE, captioner.state_dict())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(progress.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(progress.rows)
    write_text(out / METRICS_FILE, text.getvalue())
    write_json(out / INFO_FILE, info)
