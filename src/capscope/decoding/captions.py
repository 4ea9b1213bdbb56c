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
from capscope.features.device import chosen_device, on_device
from capscope.features.store import FeatureStore
from capscope.features.visual import Features, FeatureSource
from capscope.files import read_json, record_of, seal_file, write_json, write_manifest
from capscope.models.captioner import Captioner
from capscope.models.checkpoint import load_ensemble
from capscope.shards import Shard, all_shards, check_shards, open_shards, remove_shards

CAPTIONS_KIND = "captions"
SHARD_KIND = "captions-shard"
RECORDS = "captions.json"
"""What a shard holds."""


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
    shard: Shard | None = None,
    gather: int = 0,
) -> None:
    """Caption a split with a trained run and write a COCO results file.

    Parameters
    ----------
    also : sequence of Path
        Further runs: all of them caption together, as an ensemble.
    weights : sequence of float, optional
        Of each run of the ensemble; by default all count the same.
    shard : Shard, optional
        Caption this share of the images only, and leave the captions in ``<split>.shards``.
    gather : int
        Join so many shards instead of captioning; 0: caption.
    """
    settings = {**params["decoding"], "weights": weights}
    folders = {"run": run_dir, "data": data_dir, "features": features_dir}
    folders |= {f"run {number}": folder for number, folder in enumerate(also, 2)}
    inputs = {name: record_of(folder) for name, folder in folders.items()}
    place = out.with_suffix(".shards")
    if gather:
        manifests = open_shards(place, gather, SHARD_KIND)
        check_shards(place, manifests[0], settings, inputs)
        parts = [read_json(place / str(one) / RECORDS) for one in all_shards(gather)]
        records = [record for part in parts for record in part]
    else:
        run = load_ensemble([run_dir, *also], weights)
        images = open_dataset(data_dir, params).split(split)
        if not images:
            raise CapscopeError(f"{data_dir} has no images in split {split!r}")
        store = FeatureStore.open(features_dir)
        run.check_features(store)
        device = chosen_device(params["training"]["device"])
        found = caption_split(
            run.captioner.to(device),
            on_device(store, device),
            _share([image.id for image in images], settings["batch_size"], shard),
            run.vocabulary,
            settings,
            progress=f"caption {split}",
        )
        records = [caption_record(image_id, spoken, run.vocabulary) for image_id, spoken in found]
    if shard is not None:
        write_json(place / str(shard) / RECORDS, records)
        write_manifest(place / str(shard), SHARD_KIND, params=settings, inputs=inputs)
        return
    write_json(out, records)
    seal_file(out, CAPTIONS_KIND, params=settings, inputs=inputs, split=split)
    remove_shards(place)


def _share(image_ids: Sequence[int], size: int, shard: Shard | None) -> Sequence[int]:
    """Return the images of a shard, in whole batches: other neighbours could change last bits."""
    if shard is None:
        return image_ids
    batches = [image_ids[first : first + size] for first in range(0, len(image_ids), size)]
    return [image_id for batch in shard.part(batches) for image_id in batch]
