"""``capscope train``: from finished folders of data to a finished run."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capscope.data.annotations import Dataset, open_dataset
from capscope.data.captions import EncodedCaptions, open_captions
from capscope.errors import CapscopeError
from capscope.features.extractor import copy_extractor
from capscope.features.store import FeatureStore
from capscope.features.visual import FeatureSource
from capscope.files import (
    MANIFEST,
    digest,
    read_manifest,
    sha256_of,
    software,
    write_json,
    write_manifest,
    write_text,
    writing,
)
from capscope.lock import one_writer
from capscope.models import build, configure
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import INFO_FILE, MODEL_FILE
from capscope.models.from_images import FromImages
from capscope.tensors import read_tensors, write_tensors
from capscope.training.batches import Rows, image_of_row
from capscope.training.computation import Computation
from capscope.training.fine_tuning import IMAGES_FILE, ImageReader, save_network, with_network
from capscope.training.loop import Recipe, Trainer
from capscope.training.stages import STAGES, build_stage
from capscope.training.stages.stage import Corpus
from capscope.training.start import start_from
from capscope.training.state import BEST_FILE, Progress
from capscope.training.team import ALONE, Team
from capscope.training.validation import Validation, validated

LAST_FILE = "last.safetensors"
METRICS_FILE = "metrics.csv"
HISTORY_FILE = "history.csv"


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
    from_dir: Path | None = None,
    team: Team = ALONE,
) -> bool:
    """Train one run, or go on with it, and seal its folder.

    Returns False, having done nothing, if `out` already holds this very run.

    Parameters
    ----------
    out : Path
    data_dir, vocabulary_dir, features_dir : Path
        Finished folders of one data set.
    params : mapping
    system, stage, seed : str, str, int
        Which run; the stage's recipe is ``systems.<system>.<stage>``.
    from_dir : Path, optional
        A finished run whose weights are the start; a stage with ``from`` needs one.
    team : Team
        The processes that train this run together; each calls this function, the leader writes.

    Raises
    ------
    CapscopeError
        Unknown system or stage; no run to start from; inputs that do not belong together; an
        unfinished training of other parameters in ``out/state``; another trainer on `out`;
        divergence.
    """
    settings = _settings(params, system, stage, from_dir)
    inputs = {"data": data_dir, "vocabulary": vocabulary_dir, "features": features_dir}
    if from_dir is not None:
        if from_dir.resolve() == out.resolve():
            raise CapscopeError(
                f"--from and --out are both {out}: a run does not start from itself"
            )
        read_manifest(from_dir, "run")
        inputs["from"] = from_dir
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
    computation = Computation.of(params["training"], team)
    if computation.precision != "float32":
        identity["precision"] = computation.precision
    key = digest([identity, {name: sha256_of(path) for name, path in manifests.items()}])
    with writing(out), one_writer(out) if team.leads else nullcontext():
        if team.agree((out / MANIFEST).exists() and read_manifest(out, "run").get("key") == key):
            shutil.rmtree(out / "state", ignore_errors=True)
            return False
        torch.manual_seed(seed)
        recipe, own = Recipe.split(settings[stage])
        name = settings["captioner"]
        config = {
            "vocabulary_size": len(vocabulary),
            "feature_size": store.dim,
            **configure(name, store.kind, settings["model"], store.count, store.segments),
        }
        captioner, history = build(name, **config), None
        if from_dir is not None:
            history = start_from(
                from_dir, captioner, name=name, config=config, vocabulary=vocabulary, store=store
            )
        rows = spread(_training_rows(dataset, captions, store), recipe.limit)
        source: FeatureSource = store
        if own.get("encoder") == "fine_tuned":
            captioner = with_network(captioner, features_dir, own)
            ids = [*np.unique(image_of_row(captions)[rows]), *validated(dataset, recipe)]
            size = captioner.extractor.image_size or 0
            if not team.leads:
                team.agree(None)  # the leader has written the images
            source = ImageReader(out / "state" / IMAGES_FILE, dataset, ids, size)
            if team.leads:
                team.agree(None)
        computation.prepare(captioner)
        source = computation.source(source)
        corpus = Corpus(captions, rows, vocabulary, source)
        objective = build_stage(stage, captioner, corpus, own)
        trainer = Trainer(
            objective,
            Validation(dataset, captions, source, vocabulary, recipe),
            recipe,
            seed=seed,
            folder=out,
            key=key,
            fine_tuning=from_dir is not None,
            computation=computation,
        )
        progress = trainer.run()
        if not team.leads:
            return True
        captioner.cpu()
        (out / MANIFEST).unlink(missing_ok=True)
        kept_epoch, kept_score = progress.best_epoch, progress.best_score
        if recipe.keep == "last":
            kept_epoch, kept_score = progress.epoch, progress.last_score
        info = {
            "captioner": name,
            "config": config,
            "system": system,
            "stage": stage,
            "seed": seed,
            "dataset": dataset.name,
            "vocabulary": vocabulary.to_json(),
            "vocabulary_sha256": vocabulary.sha256,
            "features": store.attributes,
            "params_sha256": digest(identity),
            "software": software(),
            "decoding": params["decoding"],
            "epoch": kept_epoch,
            "validation_cider": kept_score,
            "signature": objective.signature,
            "from": history,
        }
        if not isinstance(captioner, FromImages):
            info["extractor"] = copy_extractor(features_dir, out)
        _write(out, captioner, progress, info, recipe.keep)
        write_manifest(out, "run", params=identity, inputs=manifests, key=key)
        shutil.rmtree(out / "state")
    return True


def _settings(
    params: Mapping[str, Any], system: str, stage: str, from_dir: Path | None
) -> Mapping[str, Any]:
    if system not in params["systems"]:
        known = ", ".join(params["systems"])
        raise CapscopeError(f"params: no system {system!r} in systems; there are: {known}")
    settings: Mapping[str, Any] = params["systems"][system]
    known = ", ".join(name for name in STAGES if name in settings)
    if stage not in STAGES or stage not in settings:
        raise CapscopeError(f"params: system {system} has no stage {stage!r}; it has: {known}")
    before = settings[stage].get("from")
    if before is not None and from_dir is None:
        raise CapscopeError(
            f"the stage {stage} of {system} starts from a trained captioner: give its run with "
            f"--from (by the parameters the run of the stage {before!r} with the same seed)"
        )
    return settings


def _training_rows(dataset: Dataset, captions: EncodedCaptions, store: FeatureStore) -> Rows:
    """Return the references of the train split; each of its images must have features."""
    ids = [image.id for image in dataset.split("train") if image.id in captions]
    if not ids:
        raise CapscopeError(f"data set {dataset.name} has no encoded reference in its split train")
    store.rows(ids)
    return np.flatnonzero(np.isin(image_of_row(captions), ids))


def spread(rows: Rows, limit: int | None) -> Rows:
    """Return `limit` of the rows, from the first to the last at equal distances; None: all."""
    if limit is None or limit >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def _write(
    out: Path, captioner: Captioner, progress: Progress, info: dict[str, Any], keep: str
) -> None:
    """Write the weights to keep and the last ones, the log and the description."""
    last = captioner.state_dict()
    kept = last
    if keep == "best":
        kept = read_tensors(out / "state" / BEST_FILE.format(progress.best_epoch))
    if isinstance(captioner, FromImages):
        last = {name: tensor.clone() for name, tensor in last.items()}
        kept, spec = save_network(captioner, kept, out)
        info |= {"extractor": spec, "features": {**info["features"], **spec}}
    write_tensors(out / MODEL_FILE, kept)
    write_tensors(out / LAST_FILE, last)
    write_text(
        out / METRICS_FILE, _csv(("epoch", "step", "split", "metric", "value"), progress.rows)
    )
    write_text(out / HISTORY_FILE, _csv(("epoch", "step", "metric", "value"), progress.history))
    write_json(out / INFO_FILE, info)


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
