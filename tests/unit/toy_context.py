"""Drawn scenes, an untrained captioner and made-up relevance: all that a benchmark is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from capscope.benchmarks.context import Context
from capscope.data.annotations import Dataset, read_karpathy
from capscope.data.images import read_image
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.explain.explanation import Explanation
from capscope.explain.store import Captions, RelevanceStore, write_relevance
from capscope.explain.subject import Subject
from capscope.features.grid import GridExtractor
from capscope.features.store import FeatureStore, create_store
from capscope.features.visual import Features
from capscope.files import write_manifest
from capscope.models.gridtd import GridTD

SIZE, SIDE, IMAGES = 64, 4, 8
SCENES = {"seed": 5, "size": SIZE, "train": 1, "val": 1, "test": IMAGES, "shift": 0, "bias": 0.8}
SETTINGS: dict[str, Any] = {
    "dataset": {"evaluate": ["test"]},
    "decoding": {"method": "beam", "beam": 2, "max_length": 12},
    "metrics": {"meteor": False, "cache": None, "timeout": 60},
    "explanations": {"epsilon": 0.01, "steps": 2, "batch_size": 3},
    "benchmarks": {
        "bootstrap": 20,
        "seed": 1,
        "randomisation_images": 4,
        "deletion": {"images": 3, "steps": 4, "baseline": "mean", "pixels": True, "patch": 16},
        "ablation": {"images": 4, "words": 2, "pixels": True, "patch": 16, "patches": 3},
        "latent_ablation": {"images": 4, "types": ["vf_3_min"], "search": True, "beam": 2},
        "latent_objects": {"images": 4, "by": ["mask"], "overlap": 0.5, "covered": 0.25},
        "components": {
            "images": 4,
            "components": ["VF", "WE", "HT", "CT"],
            "sigmas": [1.0],
            "steps": None,
            "meteor": False,
            "published": None,
        },
    },
}


def toy_context(folder: Path, false_words: bool = True) -> Context:
    """Return a context over scenes whose captions are references, half of them of neighbours."""
    data, features_dir = folder / "data", folder / "features"
    write_scenes(data, SCENES)
    dataset = read_karpathy(data / "dataset.json", data, "scenes")
    subject = _subject(dataset)
    images = dataset.split("test")
    pixels = torch.stack([_seen(subject, dataset, image.id) for image in images])
    cells = subject.look(pixels).cells
    with create_store(
        features_dir,
        [image.id for image in images],
        cells=cells.shape[1],
        dim=cells.shape[2],
        dtype="float32",
        attributes={"network": "toy", "grid": [SIDE, SIDE]},
    ) as writer:
        writer.append(cells)
    write_manifest(features_dir, "features", params={})
    shift = [1 if false_words and number % 2 else 0 for number in range(len(images))]
    texts = [images[(n + shift[n]) % len(images)].tokens[0] for n in range(len(images))]
    captions = Captions.of(
        [image.id for image in images], [subject.vocabulary.encode(text) for text in texts]
    )
    context = Context([], folder / "run", data, features_dir, SETTINGS)
    context.__dict__ |= {
        "dataset": dataset,
        "subject": subject,
        "vocabulary": subject.vocabulary,
        "features": FeatureStore.open(features_dir),
    }
    context.stores = [
        add_store(folder, "lrp", captions, words=True),
        add_store(folder, "attention", captions, words=False),
    ]
    return context


def add_store(
    folder: Path,
    explainer: str,
    captions: Captions,
    *,
    words: bool,
    maps: Callable[[int], Tensor] | None = None,
) -> RelevanceStore:
    """Store noise as relevance, or pixel maps (T, S, S) that `maps` gives by row."""
    generator = torch.Generator().manual_seed(len(explainer))
    batches = []
    for row, length in enumerate(captions.lengths.tolist()):
        pixels = torch.randn(1, length, 16, 16, generator=generator)
        if maps is not None:
            pixels = maps(row).unsqueeze(0)
        grid = torch.randn(1, length, SIDE * SIDE, generator=generator)
        preceding = torch.randn(1, length, length, generator=generator).tril()
        found = Explanation(grid, preceding if words else None, pixels)
        batches.append((np.array([row]), found))
    target = folder / "relevance" / explainer
    write_relevance(
        target,
        captions,
        batches,
        map_size=SIZE,
        attributes={
            "explainer": explainer,
            "title": explainer,
            "control": False,
            "split": "test",
            "grid": (SIDE, SIDE),
            "image_size": SIZE,
        },
        params={},
        inputs={},
    )
    return RelevanceStore(target)


def spoken_probability(context: Context, features: Features, prefix: list[int], word: int) -> float:
    """Return p(word) by single decoding steps."""
    captioner = context.subject.captioner
    with torch.no_grad():
        memory = captioner.encode(features)
        state = captioner.start(memory)
        for word_id in prefix:
            step = captioner.step(torch.tensor([[word_id]]), state, memory)
            state = step.state
    return float(step.log_probs[0, 0, word].exp())


def _subject(dataset: Dataset) -> Subject:
    torch.manual_seed(0)
    vocabulary = build_vocabulary([t for image in dataset.images for t in image.tokens], 1)
    network = nn.Sequential(nn.Conv2d(3, 6, 16, stride=16), nn.ReLU())
    extractor = GridExtractor("toy", network, SIZE, layer="1", positions=4)
    captioner = GridTD(len(vocabulary), extractor.dim, embedding=8, hidden=12, attention=8)
    with torch.no_grad():
        for parameter in captioner.parameters():
            parameter.mul_(3)
    return Subject(captioner.eval(), vocabulary, extractor)


def _seen(subject: Subject, dataset: Dataset, image_id: int) -> Tensor:
    return subject.network.preprocess(read_image(dataset.path(dataset.by_id(image_id))))
