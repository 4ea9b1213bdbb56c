"""Deletion and insertion curves of one caption, against asking point by point.

Prints CPU seconds of the process, best of a few runs, one thread, for the curves of several
explainers over the visual features of one image: all points of all words in one go, and a naive
twin that asks the captioner for one point of one word of one explainer at a time, with single
decoding steps.

    python benchmarks/deletion_curves.py --cells 64 --words 3 --explainers 10
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from capscope.benchmarks.deletion import Question, both_curves, most_relevant, points
from capscope.benchmarks.parts import Cells
from capscope.data.vocabulary import Vocabulary
from capscope.explain.subject import Subject
from capscope.explain.words import Word
from capscope.features.visual import Features
from capscope.models import build


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def one_by_one(parts: Cells, questions: Sequence[Question], steps: int) -> None:
    captioner, own = parts.subject.captioner, parts.own
    for word, _, relevance in questions:
        counts = points(len(relevance), steps)
        inserted = most_relevant(relevance, counts, 0)
        for kept in [*~inserted, *inserted]:
            cells = torch.where(kept.unsqueeze(1), own.cells[0], parts.nothing)
            with torch.no_grad():
                memory = captioner.encode(own._replace(cells=cells.unsqueeze(0)))
                state = captioner.start(memory)
                for word_id in parts.ids[: word.position + 1]:
                    step = captioner.step(torch.tensor([[word_id]]), state, memory)
                    state = step.state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captioner", default="gridtd")
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--vocabulary", type=int, default=200)
    parser.add_argument("--words", type=int, default=3)
    parser.add_argument("--explainers", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    special = [options.vocabulary - k for k in (2, 1, 3)]  # start, end, unknown
    names = [f"word{k}" for k in range(options.vocabulary - 4)]
    vocabulary = Vocabulary(("<pad>", *names, "<unk>", "<start>", "<end>"), 0, *special)
    captioner = build(
        options.captioner,
        vocabulary_size=options.vocabulary,
        feature_size=options.channels,
        embedding=128,
        hidden=options.hidden,
        attention=64,
    ).eval()
    own = Features(torch.randn(1, options.cells, options.channels).relu())
    subject = Subject(captioner, vocabulary)
    word_ids = torch.randint(1, options.vocabulary - 4, (4 * options.words,)).tolist()
    parts = Cells(subject, own, word_ids, own.cells[0].mean(0))

    def relevance() -> Tensor:
        return torch.randn(options.cells)

    questions = [
        Question(Word(4 * k + 2, "noun"), f"explainer {n}", relevance())
        for k in range(options.words)
        for n in range(options.explainers)
    ]
    together = cpu_seconds(
        lambda: list(both_curves(parts.ask, questions, options.steps, 0)), options.repeats
    )
    alone = cpu_seconds(lambda: one_by_one(parts, questions, options.steps), options.repeats)
    count = len(questions) * 2 * (options.steps + 1)
    print(f"points of curves   {count}")
    print(f"in one go          {together:.3f} s, {1000 * together / count:.2f} ms a point")
    print(f"one by one         {alone:.3f} s, {1000 * alone / count:.2f} ms a point")
    print(f"ratio              {alone / together:.1f}")


if __name__ == "__main__":
    main()
