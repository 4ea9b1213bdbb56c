"""Training steps of all stages against an XE step, in one run: CPU time, one thread.

All stages are at the same number of captions of the same number of words: no caption ends early.
The bars: LRP-XE 1.5 times an XE step, SCST 3 times.

    OMP_NUM_THREADS=1 python benchmarks/training_steps.py --captioner gridtd
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.training.stages import build_stage
from capscope.training.stages.stage import Corpus, Stage

REFERENCES = 5
DRAWS = {
    "cider_weight": 1.0,
    "bleu_weight": 0.0,
    "frequencies": "training",
    "end_token": "both",
    "dropout": False,
    "special_words": False,
}
GREEDY = {**DRAWS, "samples": 1, "baseline": "greedy"}
OTHERS = {**DRAWS, "samples": 4, "baseline": "others"}
STAGES: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "XE": ("xe", {"scheduled_sampling": 0.0}, None),
    "XE, scheduled sampling": ("xe", {"scheduled_sampling": 1.0}, None),
    "LRP-XE": ("lrp_xe", {"weight": 1.0}, 1.5),
    "SCST, greedy baseline": ("scst", GREEDY, 3.0),
    "SCST, 4 samples": ("scst", OTHERS, 3.0),
    "LRP-SCST, greedy baseline": ("lrp_scst", GREEDY, None),
}


def corpus_of(images: int, words: int, vocabulary: Vocabulary, features: Features) -> Corpus:
    """Return references of `words` words; every image is one of `features`."""
    rng = np.random.default_rng(0)
    rows = images * REFERENCES
    captions = EncodedCaptions(
        image_ids=np.arange(images),
        labels=rng.zipf(1.3, (rows, words)).clip(max=len(vocabulary) - 4).astype(np.uint16),
        lengths=np.full(rows, words),
        first=np.arange(images) * REFERENCES + 1,
        last=(np.arange(images) + 1) * REFERENCES,
        vocabulary_sha256="",
    )
    store: Any = SimpleNamespace(
        read=lambda ids: features.select(torch.from_numpy(ids) % len(features.cells))
    )
    return Corpus(captions, np.arange(rows), vocabulary, store)


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the best CPU time of several calls."""
    function()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


def stepper(stage: Stage, captioner: Captioner, captions: int) -> Callable[[], None]:
    """Return a whole step of the loop, without its bookkeeping."""
    optimiser = torch.optim.Adam(captioner.parameters(), 1e-9, fused=True)
    size = captions // stage.settings.get("samples", 1)
    batch = stage.batches(size, seed=0, epoch=0)[0]

    def step() -> None:
        torch.manual_seed(0)
        optimiser.zero_grad(set_to_none=True)
        stage.step(batch).loss.backward()
        torch.nn.utils.clip_grad_value_(captioner.parameters(), 0.1)
        optimiser.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captioner", default="gridtd")
    for name, default in {
        "captions": 8,
        "words": 13,
        "images": 1000,
        "regions": 36,
        "features": 2048,
        "hidden": 1024,
        "embedding": 512,
        "vocabulary": 9586,
        "repeats": 3,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = given.vocabulary
    words = ("<pad>", *(f"w{i}" for i in range(1, size - 3)), "<unk>", "<start>", "<end>")
    vocabulary = Vocabulary(words, pad=0, start=size - 2, end=size - 1, unk=size - 3)
    config: dict[str, Any] = {"embedding": given.embedding, "hidden": given.hidden}
    if given.captioner in ("gridtd", "adaptive"):
        config |= {"attention": given.regions, "global_from": "projected"}
    captioner = build(
        given.captioner, vocabulary_size=size, feature_size=given.features, **config
    ).train()
    with torch.no_grad():
        captioner.words.bias[vocabulary.end] = -1e4  # type: ignore[union-attr,index]
    features = Features(torch.randn(given.captions, given.regions, given.features).relu())
    corpus = corpus_of(given.images, given.words - 1, vocabulary, features)

    print("captioner,step,seconds,times_xe,bar")
    unit = None
    for name, (stage, settings, bar) in STAGES.items():
        built = build_stage(stage, captioner, corpus, settings)
        seconds = cpu_seconds(stepper(built, captioner, given.captions), given.repeats)
        unit = unit or seconds
        print(f"{given.captioner},{name!r},{seconds:.3f},{seconds / unit:.2f},{bar or ''}")


if __name__ == "__main__":
    main()
