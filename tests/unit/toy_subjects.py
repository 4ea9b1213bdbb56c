"""Small subjects of explanation: every captioner on a small image network, and three captions."""

from __future__ import annotations

from typing import Any

import torch
from linear_captioner import CHANNELS, SIZE, VOCABULARY
from torch import Tensor, nn

from capscope.explain import EXPLAINERS, explainer_class
from capscope.explain.explanation import Explanation
from capscope.explain.subject import Subject
from capscope.features.grid import GridExtractor
from capscope.features.segments import CellClassifier
from capscope.features.visual import Features
from capscope.models import build

BATCH, WORDS = 3, 4
LENGTHS = torch.tensor([4, 2, 3])
CONFIGS: dict[str, dict[str, Any]] = {
    "gridtd": {"attention": 5},
    "adaptive": {"attention": 5},
    "aoa": {"heads": 4},
    "rnn": {},
    "lstm": {},
    "attention_lstm": {},
    "show_tell": {"cell": "gru", "layers": 2},
    "show_attend_tell": {"attention": 5},
    "spatial": {"heads": 2, "feed_forward": 7, "layers": 2, "grid": 3},
    "object_relation": {"heads": 2, "feed_forward": 7, "layers": 2},
    "base": {"heads": 2, "feed_forward": 7, "layers": 2},
    "difnet": {"heads": 2, "feed_forward": 7, "layers": 2, "segment_size": 3},
}
BLIND = ("rnn", "lstm", "show_tell")
"""Captioners without attention."""
TRANSFORMERS = ("spatial", "object_relation", "base", "difnet")
"""Captioners whose word vectors have the size of all others."""
ON_A_GRID = [name for name in EXPLAINERS if not name.endswith("obj")]
"""Explainers that need no classes of a detector."""
PAIRS = [
    (explainer, captioner)
    for explainer in ON_A_GRID
    for captioner in CONFIGS
    if (captioner not in BLIND or not explainer.startswith("attention"))
    and (captioner in ("base", "difnet") or explainer != "alpha_beta_lrp")
    and (captioner in ("gridtd", "difnet") or explainer not in ("lime1", "lime3", "lime4", "lime5"))
]
"""Explainers, and captioners that have what these need; of what differs from lime2 in its masks
alone, two captioners."""


def home(explainer: str) -> str:
    """Return a captioner that an explainer is for."""
    return "difnet" if explainer == "alpha_beta_lrp" else "gridtd"


def examples(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return images and captions, padded to `WORDS`; `LENGTHS` has their lengths."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator) + 0.1
    word_ids = torch.randint(1, 4, (BATCH, WORDS), generator=generator)
    return images, word_ids


def explain(name: str, subject: Subject, epsilon: float = 1e-7, **options: Any) -> Explanation:
    """Explain the examples."""
    images, word_ids = examples()
    explainer = explainer_class(name)(subject, epsilon, **options)
    return explainer.explain(images, subject.look(images), subject.inputs(word_ids), LENGTHS)


def logits_of(subject: Subject, features: Features, inputs: Tensor) -> Tensor:
    """Return the logits (B, T) of the words after each of `inputs` but the last."""
    hidden = subject.captioner.hidden(features, inputs[:, :-1])
    return subject.captioner.readout(hidden.values, inputs[:, 1:])


def sizes(captioner: str) -> dict[str, Any]:
    """Return the constructor arguments of a small captioner."""
    embedding = {} if captioner in TRANSFORMERS else {"embedding": 6}
    return {**embedding, "hidden": 8, **CONFIGS[captioner]}


def toy_subject(captioner: str = "gridtd") -> Subject:
    """Return an untrained captioner on a 2 x 2 grid with position channels."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    extractor = GridExtractor("toy", network, SIZE, layer="5", scale=2.0, positions=4)
    config = sizes(captioner)
    built = build(captioner, vocabulary_size=len(VOCABULARY), feature_size=extractor.dim, **config)
    extractor.segmenter = CellClassifier(extractor.channels, "abc")
    return Subject(built.eval(), VOCABULARY, extractor)


def regions_subject(captioner: str = "gridtd", size: int = 5) -> Subject:
    """Return an untrained captioner over regions: no network behind them."""
    torch.manual_seed(5)
    config = sizes(captioner)
    if captioner in ("gridtd", "adaptive"):
        config["global_from"] = "projected"
    built = build(captioner, vocabulary_size=len(VOCABULARY), feature_size=size, **config)
    return Subject(built.eval(), VOCABULARY)


def some_regions(count: int = 3, size: int = 5) -> Features:
    """Return `count` regions an image, of which the last is padding in the second image."""
    generator = torch.Generator().manual_seed(4)
    cells = torch.rand(BATCH, count, size, generator=generator)
    corners = torch.rand(BATCH, count, 2, 2, generator=generator).sort(2).values
    valid = torch.ones(BATCH, count, dtype=torch.bool)
    valid[1, -1] = False
    there = valid.unsqueeze(-1)
    segments = torch.rand(BATCH, count, 3, generator=generator)
    class_ids = torch.randint(0, 4, (BATCH, count), generator=generator)
    class_ids = torch.where(valid, class_ids, -1)
    return Features(cells * there, corners.flatten(2) * there, valid, segments * there, class_ids)
