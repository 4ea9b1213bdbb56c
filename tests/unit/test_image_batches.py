"""Batches of several references of each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import tiny_folders, tiny_params

from capscope.data.captions import open_captions
from capscope.features.store import FeatureStore
from capscope.models import build
from capscope.training.batches import image_batches
from capscope.training.stages.stage import Corpus
from capscope.training.stages.xe import CrossEntropy

IDS = np.repeat([4, 7, 9, 11], [5, 2, 3, 6])
ROWS = np.arange(100, 116)


def test_each_image_gives_so_many_neighbours_or_draws_with_replacement() -> None:
    batches = image_batches(ROWS, IDS, 7, 3, seed=1, epoch=0)
    assert [len(batch) for batch in batches] == [6, 6]
    seen = []
    for block in np.concatenate(batches).reshape(-1, 3):
        (image,) = set(IDS[block - 100])
        seen.append(int(image))
        if image != 7:
            assert (np.diff(block) == 1).all()
    assert sorted(seen) == [4, 7, 9, 11]
    again = image_batches(ROWS, IDS, 7, 3, seed=1, epoch=0)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    other = image_batches(ROWS, IDS, 7, 3, seed=1, epoch=1)
    assert np.concatenate(batches).tolist() != np.concatenate(other).tolist()


@pytest.mark.parametrize("name", ["spatial", "gridtd"])
def test_the_loss_is_that_of_repeated_features(tmp_path: Any, name: str) -> None:
    params = tiny_params()
    folders = tiny_folders(tmp_path, params)
    vocabulary, captions = open_captions(folders["vocabulary"])
    corpus = Corpus(captions, np.arange(40), vocabulary, FeatureStore.open(folders["features"]))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden": 8, "dropout": 0.0}
    if name == "spatial":
        sizes |= {"heads": 2, "layers": 1, "feed_forward": 6, "grid": 3}
    else:
        sizes |= {"embedding": 4, "attention": 4}
    model = build(name, vocabulary_size=len(vocabulary), feature_size=corpus.store.dim, **sizes)
    settings = {"scheduled_sampling": 0.0, "captions_per_image": 4}
    stage = CrossEntropy(model, corpus, settings)
    (batch, *_) = stage.batches(12, seed=0, epoch=0)
    features, framed = stage.read(batch)
    assert len(features.cells) == (3 if model.folds else 12)
    assert len(framed.inputs) == 12
    apart = CrossEntropy(model, corpus, {"scheduled_sampling": 0.0})
    torch.testing.assert_close(stage.step(batch).loss, apart.step(batch).loss)
