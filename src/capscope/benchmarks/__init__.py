"""Benchmarks: how good explanations are. To add one, write its module and add a line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

from capscope.errors import CapscopeError

if TYPE_CHECKING:
    from capscope.benchmarks.context import Context
    from capscope.benchmarks.measurement import Measurement


class Benchmark(NamedTuple):
    """What a benchmark asks, and what a data set must have for it."""

    question: str
    needs: Literal["captions", "boxes", "scenes"] = "captions"
    """captions: any data set; boxes: it says where objects are; scenes: it can be drawn again."""


BENCHMARKS = {
    "ground_truth": Benchmark("does relevance lie on what the word is about?", "boxes"),
    "correctness": Benchmark("does relevance lie in the boxes of the named category?", "boxes"),
    "removal": Benchmark("is the most relevant object the cause of the word?", "scenes"),
    "deletion": Benchmark("how fast does the word go with what is relevant, and come back?"),
    "ablation": Benchmark("what does the word lose with the most relevant words or patches?"),
    "latent_ablation": Benchmark("what does the word lose without the most relevant features?"),
    "latent_correlation": Benchmark("does relevance rank features as truth and detector do?"),
    "latent_objects": Benchmark("does the object that a word names get the most relevance?"),
    "components": Benchmark("which component of the captioner do captions depend on?"),
    "hallucination": Benchmark("does relevance tell true object words from hallucinated ones?"),
    "randomisation": Benchmark("are maps of a captioner without knowledge different?"),
    "contribution": Benchmark("how much of a word comes from the image, how much from words?"),
    "conservation": Benchmark("how much of the relevance that was sent down arrives?"),
}
"""Benchmarks by name; ``capscope.benchmarks.<name>.benchmark`` measures."""


def measure(name: str, context: Context) -> list[Measurement]:
    """Return the measurements of the benchmark `name` on the explanations of a run."""
    if name not in BENCHMARKS:
        raise CapscopeError(f"unknown benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    found: list[Measurement] = import_module(f"capscope.benchmarks.{name}").benchmark(context)
    return found
