"""Finished folders of a data set that trains in a second: captions that follow from features."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from capscope.data.annotations import Dataset, Image, karpathy_json
from capscope.data.captions import prepare_captions
from capscope.features.store import create_store
from capscope.files import write_json, write_manifest
from capscope.params import Params, load_params, merge

ANIMALS = ["cat", "dog", "fish", "bird"]
COLOURS = ["red", "blue", "green"]
ROOT = Path(__file__).parents[2]


def tiny_params(**recipe: Any) -> Params:
    """Return the default parameters with a small model and short training, in all stages."""
    recipe = {"epochs": 2, "batch_size": 16, "validation_images": 6, "patience": 2, **recipe}
    model = {"embedding": 12, "hidden": 16, "attention": 10}
    tuning = {"epoch_steps": None, "keep": "best", **recipe, "batch_size": 8}
    system = {"model": model, "vocabulary": {"min_count": 1}, "xe": recipe, "lrp_xe": tuning}
    system |= {"scst": {**tuning, "samples": 2}, "lrp_scst": {**tuning, "samples": 2}}
    overlay = {
        "dataset": {"name": "tiny"},
        "systems": {"gridtd": system},
        "decoding": {"beam": 2, "max_length": 10, "batch_size": 4},
    }
    return merge(load_params([ROOT / "params.yaml"]), overlay)


def tiny_folders(folder: Path, params: Params, images: int = 40) -> dict[str, Path]:
    """Make the folders data, vocabulary and features, as `train_run` takes them."""
    generator = random.Random(0)
    torch.manual_seed(0)
    entries, features = [], []
    for number in range(images):
        animal, colour = generator.randrange(4), generator.randrange(3)
        words = ["a", COLOURS[colour], ANIMALS[animal]]
        all_words = [words, [*words, "on", "the", "grass"], ["there", "is", *words]]
        split = ("train", "train", "train", "val", "test")[number % 5]
        raws = tuple(" ".join(sentence) for sentence in all_words)
        tokens = tuple(tuple(sentence) for sentence in all_words)
        entries.append(Image(100 + number, f"{number}.png", split, raws, tokens, 8, 8))
        cells = torch.randn(4, 7) * 0.1
        cells[number % 4, animal] += 2
        cells[number % 4, 4 + colour] += 2
        features.append(cells)
    dataset = Dataset("tiny", folder / "data", tuple(entries))
    write_json(folder / "data" / "dataset.json", karpathy_json(dataset))
    write_manifest(folder / "data", "data", params={})
    prepare_captions(folder / "vocabulary", folder / "data", params, "gridtd")
    store = folder / "features"
    store.mkdir()
    with create_store(
        store,
        [entry.id for entry in entries],
        cells=4,
        dim=7,
        dtype="float32",
        attributes={"network": "toy", "grid": [2, 2]},
    ) as writer:
        writer.append(torch.stack(features))
    write_manifest(store, "features", params={})
    return {name: folder / name for name in ("data", "vocabulary", "features")}
