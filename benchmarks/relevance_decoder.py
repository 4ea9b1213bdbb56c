"""LRP of all words of a batch of captions, decoder part, against training and a naive twin.

Prints CPU seconds of the process, best of a few runs, one thread, and two ratios: to one
teacher-forced forward and backward pass of the same batch (the bar is 0.15 a word), and to the
closed recursion, which goes over images, words and steps one by one as the published program does.

    python benchmarks/relevance_decoder.py --words 10 --batch 4
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from capscope.features.visual import Features
from capscope.models.gridtd import GridTD
from capscope.relevance.backward import word_relevance
from capscope.relevance.recursion_gridtd import gridtd_lrp
from capscope.relevance.rules import LRP


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=512, help="also the embedding")
    parser.add_argument("--cells", type=int, default=196)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=9586)
    parser.add_argument("--attention", type=int, default=196)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--naive", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    captioner = GridTD(
        options.vocabulary, options.channels, options.hidden, options.hidden, options.attention
    ).eval()
    features = Features(torch.randn(options.batch, options.cells, options.channels).relu())
    word_ids = torch.randint(1, options.vocabulary, (options.batch, options.words + 1))

    def train() -> None:
        captioner.zero_grad()
        logits = captioner.readout(captioner.hidden(features, word_ids[:, :-1]).values)
        cross_entropy(logits.flatten(0, 1), word_ids[:, 1:].flatten()).backward()

    def explain() -> None:
        word_relevance(captioner, features, word_ids, LRP)

    training = cpu_seconds(train, options.repeats)
    explaining = cpu_seconds(explain, options.repeats)
    bar = 0.15 * options.words
    print(f"gridTD, {options.batch} captions of {options.words} words, CPU seconds, one thread")
    print(f"forward + backward      {training:8.4f}")
    print(f"LRP of all words        {explaining:8.4f}   {explaining / options.batch:.4f} a caption")
    print(f"ratio                   {explaining / training:8.2f}   bar {bar:.2f}")
    if options.naive:
        naive = cpu_seconds(lambda: gridtd_lrp(captioner, features, word_ids), 1)
        print(f"naive twin              {naive:8.4f}   {naive / explaining:.0f} times as long")


if __name__ == "__main__":
    main()
