"""N-gram files and the CIDEr-D made from them, against prepro_ngrams and ruotianluo/cider."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from capscope.data.annotations import read_karpathy
from capscope.data.labels import read_vocabulary
from capscope.metrics.bleu import bleu
from capscope.metrics.cider import cider_d
from capscope.metrics.frequency_files import read_frequencies
from capscope.metrics.label_frequencies import label_frequencies, write_label_frequencies

GOLDEN = Path(os.environ.get("CAPSCOPE_GOLDEN", Path(__file__).parents[2] / "../shared/golden"))
FOLDER = GOLDEN / "spatial"
SPLITS = ("train", "all", "val")


def fixture(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    return path


@pytest.mark.parametrize("kind", ["words", "idxs"])
@pytest.mark.parametrize("split", SPLITS)
def test_frequencies_of_a_split_are_those_of_the_published_script(split, kind, tmp_path):
    expected = read_frequencies(fixture(f"toy_ngrams_{split}.json"), kind)
    dataset = read_karpathy(fixture("toy_dataset_coco.json"), FOLDER, "toy")
    vocabulary = read_vocabulary(fixture("toy_talk.json"))
    images = dataset.images if split == "all" else dataset.split(split)
    found = label_frequencies(images, vocabulary)
    assert found[kind].images == expected.images
    write_label_frequencies(tmp_path / "ngrams.json", found)
    written = read_frequencies(tmp_path / "ngrams.json", kind)
    assert written.counts == expected.counts
    assert written.images == expected.images


def test_rewards_with_a_published_table_are_those_of_the_original():
    rewards = np.load(fixture("scst_reward.npz"))
    table = fixture(json.loads(str(rewards["meta"]))["df"].split()[0])
    frequencies = read_frequencies(table, "idxs")

    def words(row):
        """A caption ends with its first 0, which counts as a word."""
        said = [int(word) for word in row]
        return said[: said.index(0) + 1] if 0 in said else said

    ends = np.cumsum([0, *rewards["gts_count"]])
    images = [[words(row) for row in rewards["gts"][a:b]] for a, b in pairwise(ends)]
    captions = [words(row) for row in (*rewards["gen"], *rewards["greedy"])]
    per_image = len(rewards["gen"]) // len(images)
    references = [images[place // per_image] for place in range(len(rewards["gen"]))] * 2
    mean, scores = cider_d(references, captions, frequencies)
    np.testing.assert_allclose(scores, rewards["ciderd_scores"], rtol=0, atol=1e-9)
    assert mean == pytest.approx(float(rewards["ciderd_mean"]), abs=1e-9)
    own = cider_d(references, captions)[1]
    np.testing.assert_allclose(own, rewards["ciderd_corpus_df_scores"], rtol=0, atol=1e-9)
    corpus, per_caption = bleu(references, captions)
    np.testing.assert_allclose(corpus, rewards["bleu_corpus_1to4"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(per_caption, rewards["bleu_scores_1to4"], rtol=0, atol=1e-9)
