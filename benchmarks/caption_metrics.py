"""BLEU, ROUGE-L and CIDEr against pycocoevalcap, in one run: CPU time of the process, one thread.

Captions are drawn from a Zipf vocabulary, or are real ones; scores of both are compared. The reward
is CIDEr-D of sampled captions, as word ids, against references that are prepared once; it is
measured in several rounds, since the ratio must hold on a loaded machine, too.

    OMP_NUM_THREADS=1 python benchmarks/caption_metrics.py --images 5000 --samples 250
    OMP_NUM_THREADS=1 python benchmarks/caption_metrics.py --captions captions_val2017.json
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocoevalcap.cider.cider import Cider

from capscope.metrics.cider import CiderD
from capscope.metrics.evaluate import CaptionScorer
from capscope.metrics.original import original_scores
from capscope.metrics.results import read_references
from capscope.metrics.treebank import treebank_tokenize

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


def drawn(images: int, rng: np.random.Generator) -> tuple[list[list[Ids]], list[Ids]]:
    """Draw five references for each image, and a candidate."""
    captions = [draw(rng) for _ in range(images)]
    references = [[vary(caption, rng) for _ in range(5)] for caption in captions]
    return references, [vary(caption, rng) for caption in captions]


def real(path: Path, images: int, rng: np.random.Generator) -> tuple[list[list[Ids]], list[Ids]]:
    """Take the references of COCO captions, and as a candidate one of them, varied."""
    dataset = read_references(path).images[:images]
    flat = treebank_tokenize([text for image in dataset for text in image.references])
    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(word, len(numbers) + 1) for word in t.split()] for t in flat]
    ends = np.cumsum([len(image.references) for image in dataset]).tolist()
    references = [
        ids[end - len(image.references) : end] for image, end in zip(dataset, ends, strict=True)
    ]
    return references, [vary(image[0], rng) for image in references]


def main() -> None:
    """Print times, ratios and differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--captions", type=Path, help="COCO captions JSON, instead of drawing.")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    if options.captions:
        references, candidates = real(options.captions, options.images, rng)
    else:
        references, candidates = drawn(options.images, rng)
    texts = [[" ".join(map(str, ref)) for ref in image] for image in references]
    said = [" ".join(map(str, caption)) for caption in candidates]

    ours, measures = cpu_seconds(lambda: CaptionScorer(texts).measures(said), options.repeats)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    theirs, scores = cpu_seconds(lambda: original_scores(texts, said), 1)
    difference = max(abs(measures[name].value - value) for name, (value, _) in scores.items())
    count = sum(map(len, references))
    print(
        f"{len(references)} images, {count} references: BLEU + ROUGE-L + CIDEr after tokenisation"
    )
    print(f"  ours {ours:.3f} s, pycocoevalcap {theirs:.3f} s, {theirs / ours:.1f} times as fast")
    print(f"  largest difference {difference:.1e}, peak memory {memory:.0f} MB")

    scorer = CiderD(references)
    images = rng.integers(len(references), size=options.samples).tolist()
    sampled = [vary(candidates[image], rng) for image in images]
    results = {place: [" ".join(map(str, caption))] for place, caption in enumerate(sampled)}
    truth = {place: texts[image] for place, image in enumerate(images)}
    print(f"CIDEr-D reward of {options.samples} captions against prepared references")
    for _ in range(options.rounds):
        ours, _ = cpu_seconds(lambda: scorer.score(sampled, images), 4 * options.repeats)
        theirs, _ = cpu_seconds(lambda: Cider().compute_score(truth, results), options.repeats)
        print(f"  ours {ours * 1e3:.2f} ms, pycocoevalcap {theirs * 1e3:.1f} ms, ", end="")
        print(f"{theirs / ours:.0f} times as fast")


if __name__ == "__main__":
    main()
