"""The benchmarks of one run, from its relevance stores to a table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from capscope.benchmarks import measure
from capscope.benchmarks.context import Context
from capscope.benchmarks.judged import JudgedWord, judged_words
from capscope.benchmarks.measurement import write_measurements, write_rows, write_sums
from capscope.errors import CapscopeError
from capscope.explain.store import INDEX, INDEX_KIND, RelevanceStore
from capscope.files import MANIFEST, check_file, read_json, record_of, seal_file, sha256_of
from capscope.params import explained_splits

DETAILS, WORDS = "details", "words.csv"
TABLE_KIND = "benchmark"


def open_stores(stack: ExitStack, run_dir: Path, params: dict[str, Any]) -> list[RelevanceStore]:
    """Open ``relevance/<explainer>/<split>`` of a run for all that the index of a split names."""
    folder = run_dir / "relevance"
    stores = []
    for split in explained_splits(params):
        index = folder / INDEX.format(split)
        check_file(index, INDEX_KIND)
        for explainer, sha256 in read_json(index)["explainers"].items():
            store = stack.enter_context(RelevanceStore(folder / explainer / split))
            if sha256_of(store.folder / MANIFEST) != sha256:
                raise CapscopeError(
                    f"{store.folder} is not what {index} names, it may explain other captions: "
                    "run `capscope relevance` again"
                )
            stores.append(store)
    return stores


def run_benchmarks(
    names: Sequence[str],
    run_dir: Path,
    data_dir: Path,
    features_dir: Path,
    out: Path,
    params: dict[str, Any],
) -> None:
    """Measure, and write a table for each benchmark.

    Parameters
    ----------
    names : sequence of str
        Keys of `capscope.benchmarks.BENCHMARKS`.
    run_dir, data_dir, features_dir : Path
        The run with its relevance stores, its data set, and the features with their extractor.
    out : Path
        Gets ``<name>.csv``, tidy: explainer, resolution, word_kind, split, measure, value, low,
        high, n. In ``details``: ``<name>.csv``, what the headline measures are of each image, and
        ``words.csv``, which words of the explained captions are right.
    params : dict
    """
    with ExitStack() as stack:
        stores = open_stores(stack, run_dir, params)
        context = Context(stores, run_dir, data_dir, features_dir, params)
        for name in names:
            rows = measure(name, context)
            write_sums(out / DETAILS / f"{name}.csv", name, rows)
            write_measurements(out / f"{name}.csv", rows)
        write_rows(out / DETAILS / WORDS, JudgedWord._fields, judged_words(context))
    products = {"run": run_dir, "data": data_dir, "features": features_dir}
    for split in explained_splits(params):
        products[f"relevance of {split}"] = run_dir / "relevance" / INDEX.format(split)
    inputs = {name: record_of(product) for name, product in products.items()}
    tables = [out / f"{name}.csv" for name in names]
    tables += [out / DETAILS / name for name in (*(table.name for table in tables), WORDS)]
    for table in tables:
        seal_file(table, TABLE_KIND, params=params["benchmarks"], inputs=inputs)
