"""BLEU, ROUGE-L and CIDEr against pycocoevalcap, in one run: CPU time of the process, one thread.

Captions are drawn from a Zipf vocabulary; scores of both are compared. The reward is CIDEr-D of
sampled captions, as word ids, against references that are prepared once.

    OMP_NUM_THREADS=1 python benchmarks/caption_metrics.py --images 5000 --samples 250
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from capscope.metrics.cider import CiderD
from capscope.metrics.evaluate import CaptionScorer
from capscope.metrics.original import original_scores

WORDS, LENGTHS = 8000, (7, 16)
Ids = list[int]


def draw(rng: np.random.Generator) -> Ids:
    """Draw one caption as word ids."""
    words: Ids = np.minimum(rng.zipf(1.3, rng.integers(*LENGTHS)), WORDS).tolist()
    return words


def vary(caption: Ids, rng: np.random.Generator) -> Ids:
    """Replace about a third of the words."""
    drawn = zip(caption, np.minimum(rng.zipf(1.3, len(caption)), WORDS).tolist(), strict=True)
    return [new if rng.random() < 0.33 else old for old, new in drawn]


def cpu_seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the best CPU time of several calls, and what the last one returned."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        found = function()
        times.append(time.process_time() - begun)
    return min(times), found


def main() -> None:
    """Print times, ratios and differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    captions = [draw(rng) for _ in range(options.images)]
    references = [[vary(caption, rng) for _ in range(5)] for caption in captions]
    candidates = [vary(caption, rng) for caption in captions]
    texts = [[" ".join(map(str, ref)) for ref in image] for image in references]
    said = [" ".join(map(str, caption)) for caption in candidates]

    ours, measures = cpu_seconds(lambda: CaptionScorer(texts).measures(said), options.repeats)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    theirs, scores = cpu_seconds(lambda: original_scores(texts, said), 1)
    difference = max(abs(measures[name].value - value) for name, (value, _) in scores.items())
    print(f"{options.images} images x 5 references, BLEU + ROUGE-L + CIDEr after tokenisation")
    print(f"  ours {ours:.3f} s, pycocoevalcap {theirs:.3f} s, {theirs / ours:.1f} times as fast")
    print(f"  largest difference {difference:.1e}, peak memory {memory:.0f} MB")

    scorer = CiderD(references)
    images = rng.integers(options.images, size=options.samples).tolist()
    sampled = [vary(candidates[image], rng) for image in images]
    their_texts = [texts[image] for image in images]
    their_said = [" ".join(map(str, caption)) for caption in sampled]
    ours, _ = cpu_seconds(lambda: scorer.score(sampled, images), 10 * options.repeats)
    from pycocoevalcap.cider.cider import Cider

    results = {place: [text] for place, text in enumerate(their_said)}
    truth = dict(enumerate(their_texts))
    theirs, _ = cpu_seconds(lambda: Cider().compute_score(truth, results), options.repeats)
    print(f"CIDEr-D reward of {options.samples} captions against prepared references")
    print(f"  ours {ours * 1e3:.2f} ms, pycocoevalcap {theirs * 1e3:.1f} ms, ", end="")
    print(f"{theirs / ours:.0f} times as fast")


if __name__ == "__main__":
    main()
