"""LRP of all words of captions, decoder part, against training and a naive twin.

For each captioner it prints CPU seconds of the process, best of a few runs, one thread: of one
caption and of a batch of them, down to the visual features, and their ratio to one teacher-forced
forward and backward pass of the same batch (the bar is 0.15 a word). The naive twin is the closed
recursion, which goes over images, words and steps one by one as the published program does. A
column is what was asked of a caption of 10 words at H = 512, 196 cells and 9586 words: 0.06 s
alone, 0.03 s in a batch of 4.

    python benchmarks/relevance_decoder.py --words 10 --batch 4
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from capscope.features.visual import Features
from capscope.models import build
from capscope.relevance.backward import word_relevance
from capscope.relevance.recursion_adaptive import adaptive_lrp
from capscope.relevance.recursion_aoa import aoa_lrp
from capscope.relevance.recursion_gridtd import gridtd_lrp
from capscope.relevance.rules import LRP

NAIVE: dict[str, Callable[..., object]] = {
    "gridtd": gridtd_lrp,
    "aoa": aoa_lrp,
    "adaptive": adaptive_lrp,
}
ALONE, TOGETHER = 0.06, 0.03


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def measure(name: str, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    config: dict[str, Any] = {"heads": options.heads}
    if name != "aoa":
        config = {"attention": options.cells}
    captioner = build(
        name,
        vocabulary_size=options.vocabulary,
        feature_size=options.channels,
        embedding=options.hidden,
        hidden=options.hidden,
        **config,
    ).eval()
    features = Features(torch.randn(options.batch, options.cells, options.channels).relu())
    word_ids = torch.randint(1, options.vocabulary, (options.batch, options.words + 1))

    def train() -> None:
        captioner.zero_grad()
        logits = captioner.readout(captioner.hidden(features, word_ids[:, :-1]).values)
        cross_entropy(logits.flatten(0, 1), word_ids[:, 1:].flatten()).backward()

    def explain(count: int) -> float:
        some, ids = features.select(slice(0, count)), word_ids[:count]
        return cpu_seconds(lambda: word_relevance(captioner, some, ids, LRP), options.repeats)

    training = cpu_seconds(train, options.repeats)
    alone, batch = explain(1), explain(options.batch)
    print(f"{name}")
    print(f"  forward + backward      {training:8.4f}")
    print(f"  LRP, one caption        {alone:8.4f}   bar {ALONE}")
    print(f"  LRP, {options.batch} captions        {batch:8.4f}", end="   ")
    print(f"{batch / options.batch:.4f} a caption, bar {TOGETHER}")
    print(f"  ratio                   {batch / training:8.2f}   bar {0.15 * options.words:.2f}")
    if options.naive:
        naive = cpu_seconds(lambda: NAIVE[name](captioner, features, word_ids), 1)
        print(f"  naive twin              {naive:8.4f}   {naive / batch:.0f} times as long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captioners", nargs="+", choices=NAIVE, default=list(NAIVE))
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=512, help="also the embedding")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--cells", type=int, default=196)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=9586)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()

    torch.set_num_threads(1)
    print(f"captions of {options.words} words, CPU seconds, one thread")
    for name in options.captioners:
        measure(name, options)


if __name__ == "__main__":
    main()
