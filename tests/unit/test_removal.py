"""The removal benchmark against one scene, one object, one word at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from capscope.benchmarks.depiction import Depiction, scene_depictions
from capscope.benchmarks.measurement import Measurement
from capscope.benchmarks.removal import measure_removal
from capscope.data.annotations import Dataset, read_karpathy
from capscope.data.scenes.render import render
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.explain.explanation import Explanation
from capscope.explain.store import Captions, RelevanceStore, write_relevance
from capscope.explain.subject import Subject
from capscope.explain.words import scene_words
from capscope.features.grid import GridExtractor
from capscope.models.gridtd import GridTD

SIZE = 64
SETTINGS = {"seed": 4, "size": SIZE, "train": 1, "val": 1, "test": 8, "shift": 0, "bias": 0.8}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, SETTINGS)
    return folder


@pytest.fixture(scope="module")
def dataset(scenes: Path) -> Dataset:
    return read_karpathy(scenes / "dataset.json", scenes, "scenes")


@pytest.fixture(scope="module")
def subject(dataset: Dataset) -> Subject:
    torch.manual_seed(0)
    vocabulary = build_vocabulary([t for image in dataset.images for t in image.tokens], 1)
    network = nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.ReLU())
    extractor = GridExtractor("toy", network, SIZE, layer="1", positions=4)
    captioner = GridTD(len(vocabulary), extractor.dim, embedding=8, hidden=12, attention=8)
    return Subject(captioner.eval(), vocabulary, extractor)


def caption(dataset: Dataset, number: int) -> list[str]:
    """Captions of the image itself, and of its neighbour: false nouns."""
    images = dataset.split("test")
    shift = 0 if number % 2 else 1
    return list(images[(number + shift) % len(images)].tokens[0])


def slow_drops(subject: Subject, depiction: Depiction, words: list[str]) -> torch.Tensor:
    """Log-probability that each word loses with each object, by single steps."""

    def log_probs(removed: int | None) -> list[float]:
        picture = Image.fromarray(render(depiction.recipe, without=removed))
        features = subject.look(subject.network.preprocess(picture).unsqueeze(0))
        memory = subject.captioner.encode(features)
        state = subject.captioner.start(memory)
        last, found = subject.vocabulary.start, []
        for word_id in subject.vocabulary.encode(words):
            step = subject.captioner.step(torch.tensor([[last]]), state, memory)
            found.append(float(step.log_probs[0, 0, word_id]))
            state, last = step.state, word_id
        return found

    with torch.no_grad():
        whole = torch.tensor(log_probs(None))
        return torch.stack(
            [whole - torch.tensor(log_probs(k)) for k in range(len(depiction.objects))], 1
        )


def measured(
    folder: Path, scenes: Path, dataset: Dataset, subject: Subject, sign: float
) -> dict[tuple[str, str, str], Measurement]:
    """Measure maps that put `sign` times the mask of the slowly found causal object."""
    images = dataset.split("test")
    texts = [caption(dataset, number) for number in range(len(images))]
    captions = Captions.of(
        [image.id for image in images], [subject.vocabulary.encode(text) for text in texts]
    )
    depictions = scene_depictions(scenes, dataset, captions.image_ids.tolist())
    batches = []
    for row, (image, words) in enumerate(zip(images, texts, strict=True)):
        depiction = depictions[image.id]
        causes = slow_drops(subject, depiction, words).argmax(1)
        maps = sign * depiction.masks[causes].float()
        batches.append(
            (np.array([row]), Explanation(torch.zeros(1, len(words), 64), pixels=maps[None]))
        )
    write_relevance(
        folder,
        captions,
        batches,
        map_size=SIZE,
        attributes={"explainer": "made", "split": "test", "grid": (8, 8), "image_size": SIZE},
        params={},
        inputs={},
    )
    with RelevanceStore(folder) as store:
        rows = measure_removal([store], subject, scenes, dataset, images=6, resamples=20, seed=1)
    return {(row.explainer, row.resolution, row.word_kind): row for row in rows}


def test_maps_on_the_causal_object_always_agree(
    tmp_path: Path, scenes: Path, dataset: Dataset, subject: Subject
) -> None:
    rows = measured(tmp_path, scenes, dataset, subject, 1)
    assert rows["made", "pixels", "noun"].value == 1
    assert rows["made", "pixels", "hallucinated noun"].value == 1
    assert 0 <= rows["random", "pixels", "noun"].value <= 1
    # An empty map chooses every object a little: chance.
    assert 0.2 < rows["made", "grid", "noun"].value < 0.6


def test_maps_against_the_causal_object_never_agree(
    tmp_path: Path, scenes: Path, dataset: Dataset, subject: Subject
) -> None:
    rows = measured(tmp_path, scenes, dataset, subject, -1)
    assert rows["made", "pixels", "noun"].value == 0
    assert rows["made", "pixels", "hallucinated noun"].value == 0


def test_the_named_object_is_compared_with_the_cause(
    tmp_path: Path, scenes: Path, dataset: Dataset, subject: Subject
) -> None:
    rows = measured(tmp_path, scenes, dataset, subject, 1)
    images = dataset.split("test")
    depictions = scene_depictions(scenes, dataset, [image.id for image in images])
    agreed, used = [], 0
    for number, image in enumerate(images):
        depiction = depictions[image.id]
        if len(depiction.objects) < 2 or used == 6:
            continue
        used += 1
        words = caption(dataset, number)
        drops = slow_drops(subject, depiction, words)
        for word in scene_words(words):
            labels = [thing.label for thing in depiction.objects]
            if word.kind == "noun" and word.about[0] in labels and drops[word.position].max() > 0:
                agreed.append(int(drops[word.position].argmax()) == labels.index(word.about[0]))
    row = rows["named object", "masks", "noun"]
    assert row.value == pytest.approx(np.mean(agreed))
    assert row.n == len(agreed)
