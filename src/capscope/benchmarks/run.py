"""The benchmarks of one run, from its relevance stores to a table."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from capscope.benchmarks import measure
from capscope.benchmarks.context import Context
from capscope.benchmarks.measurement import write_measurements
from capscope.errors import CapscopeError
from capscope.explain.store import RelevanceStore


def open_stores(stack: ExitStack, run_dir: Path, params: dict[str, Any]) -> list[RelevanceStore]:
    """Open ``relevance/<explainer>/<split>`` of a run for all explainers, controls and splits."""
    settings = params["explanations"]
    stores = [
        stack.enter_context(RelevanceStore(run_dir / "relevance" / explainer / split))
        for split in params["dataset"]["evaluate"]
        for explainer in [*settings["explainers"], *settings["controls"]]
    ]
    for store in stores:
        first = next(other for other in stores if other.split == store.split)
        if not store.same_captions(first):
            raise CapscopeError(
                f"{store.folder} and {first.folder} explain different captions: "
                "run `capscope relevance` again for both"
            )
    return stores


def run_benchmark(
    name: str, run_dir: Path, data_dir: Path, features_dir: Path, out: Path, params: dict[str, Any]
) -> None:
    """Measure and write the table `out`.

    Parameters
    ----------
    name : str
        A key of `capscope.benchmarks.BENCHMARKS`.
    run_dir, data_dir, features_dir : Path
        The run with its relevance stores, its data set, and the features with their extractor.
    out : Path
        CSV, tidy: explainer, resolution, word_kind, split, measure, value, low, high, n.
    params : dict
    """
    with ExitStack() as stack:
        stores = open_stores(stack, run_dir, params)
        rows = measure(name, Context(stores, run_dir, data_dir, features_dir, params))
    write_measurements(out, rows)
