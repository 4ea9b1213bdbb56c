"""The recurrent captioners of the fixtures: weights, features and captions as files hold them."""

from __future__ import annotations

import numpy as np
import torch
from image_networks import Golden
from torch import Tensor

from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.features.visual import Features
from capscope.importers.rnn_family import from_original
from capscope.models.captioner import Captioner

NAMES = {"rnn": "rnn", "lstm": "lstm", "attn": "attention_lstm"}
SPECIAL = ("<NULL>", "<START>", "<END>", "<UNK>")
GIVEN = {"rtol": 1e-5, "atol": 1e-5}


def features_of(golden: Golden) -> Features:
    """Return the stored maps (B, C, h, w) as visual features."""
    return Features(golden["features"].float().flatten(2).transpose(1, 2))


def captioner_of(golden: Golden, prefix: str = "w.") -> tuple[Captioner, str]:
    name = NAMES[golden.meta["cell"]]
    captioner, network = from_original(name, golden.weights(prefix))
    assert network is None
    return captioner, name


def vocabulary_of(size: int) -> Vocabulary:
    """Return a vocabulary of the published special words and as many others as are needed."""
    words = (*SPECIAL, *(f"word{i}" for i in range(len(SPECIAL), size)))
    return Vocabulary(words, pad=0, start=1, end=2, unk=3)


def encoded(captions: Tensor, vocabulary: Vocabulary) -> EncodedCaptions:
    """Return framed and padded captions (N, L) as references, one of each of images 0 to N - 1."""
    rows = [row[1 : row.index(vocabulary.end)] for row in captions.tolist()]
    labels = np.zeros((len(rows), captions.shape[1] - 2), np.uint16)
    for label, row in zip(labels, rows, strict=True):
        label[: len(row)] = row
    places = np.arange(1, len(rows) + 1)
    lengths = np.array([len(row) for row in rows])
    return EncodedCaptions(np.arange(len(rows)), labels, lengths, places, places, "")


class HeldFeatures:
    """Features of images 0 to N - 1, read as from a store."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def read(self, ids: np.ndarray) -> Features:
        return self.features.select(torch.from_numpy(np.asarray(ids)))
