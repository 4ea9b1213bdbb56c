"""Captions of whole splits, by the ``decoding`` section of the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from capscope.data.annotations import open_dataset
from capscope.data.vocabulary import Vocabulary
from capscope.decoding.hypothesis import Hypothesis
from capscope.decoding.methods import search_images
from capscope.errors import CapscopeError
from capscope.features.store import FeatureStore
from capscope.features.visual import Features, FeatureSource
from capscope.files import record_of, seal_file, write_json
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import load_ensemble

CAPTIONS_KIND = "captions"


def caption_images(
    captioner: Captioner, features: Features, vocabulary: Vocabulary, settings: Mapping[str, Any]
) -> list[Hypothesis]:
    """Return one caption of each image of a batch, as `search_images` finds them."""
    found = search_images(captioner, features, vocabulary, settings)
    return [hypotheses[0] for hypotheses in found]


def caption_split(
    captioner: Captioner,
    store: FeatureSource,
    image_ids: Sequence[int],
    vocabulary: Vocabulary,
    settings: Mapping[str, Any],
    *,
    progress: str | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Yield image id and captions of many images, ``settings["batch_size"]`` at a time.

    The first caption is the one to show; methods that find several give the others behind it.

    Parameters
    ----------
    progress : str or None
        Label of a progress bar; None shows none.
    """
    size = settings["batch_size"]
    with tqdm(total=len(image_ids), unit="image", desc=progress, disable=progress is None) as bar:
        for first in range(0, len(image_ids), size):
            ids = image_ids[first : first + size]
            found = search_images(captioner, store.read(ids), vocabulary, settings, ids)
            yield from zip(ids, found, strict=True)
            bar.update(len(ids))


def caption_record(
    image_id: int, hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return an entry of a COCO results file, with word ids and log-probabilities beside it.

    Further captions of the image stand under ``others``, so that an image has one entry.
    """
    first, *others = (
        {
            "caption": vocabulary.decode(hypothesis.word_ids),
            "word_ids": list(hypothesis.word_ids),
            "log_probs": [round(value, 6) for value in hypothesis.log_probs],
        }
        for hypothesis in hypotheses
    )
    record = {"image_id": image_id, **first}
    return {**record, "others": others} if others else record


def decode_run(
    run_dir: Path,
    data_dir: Path,
    features_dir: Path,
    params: Mapping[str, Any],
    *,
    split: str,
    out: Path,
    also: Sequence[Path] = (),
    weights: Sequence[float] | None = None,
) -> None:
    """Caption a split with a trained run and write a COCO results file.

    Parameters
    ----------
    also : sequence of Path
        Further runs: all of them caption together, as an ensemble.
    weights : sequence of float, optional
        Of each run of the ensemble; by default all count the same.
    """
    run = load_ensemble([run_dir, *also], weights)
    images = open_dataset(data_dir, params).split(split)
    if not images:
        raise CapscopeError(f"{data_dir} has no images in split {split!r}")
    store = FeatureStore.open(features_dir)
    run.check_features(store)
    found = caption_split(
        run.captioner,
        store,
        [image.id for image in images],
        run.vocabulary,
        params["decoding"],
        progress=f"caption {split}",
    )
    write_json(out, [caption_record(image, spoken, run.vocabulary) for image, spoken in found])
    folders = {"run": run_dir, "data": data_dir, "features": features_dir}
    folders |= {f"run {number}": folder for number, folder in enumerate(also, 2)}
    inputs = {name: record_of(folder) for name, folder in folders.items()}
    settings = {**params["decoding"], "weights": weights}
    seal_file(out, CAPTIONS_KIND, params=settings, inputs=inputs, split=split)
