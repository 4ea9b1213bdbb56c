"""The benchmarks of one run, from its relevance stores to a table."""

from __future__ import annotations

import shutil
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
from capscope.files import (
    MANIFEST,
    atomic_path,
    check_file,
    read_json,
    record_of,
    seal_file,
    sha256_of,
    write_manifest,
)
from capscope.params import explained_splits
from capscope.shards import Shard, all_shards, check_shards, open_shards, remove_shards

DETAILS, WORDS = "details", "words.csv"
SHARDS_FOLDER = "shards"
TABLE_KIND, SHARD_KIND = "benchmark", "benchmark-shard"


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
    shard: Shard | None = None,
    gather: int = 0,
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
    shard : Shard, optional
        Measure this share of `names` only, and leave the tables in ``shards``: every so many-th
        name, because those that take long stand together.
    gather : int
        Join so many shards instead of measuring; 0: measure.
    """
    settings = params["benchmarks"]
    products = {"run": run_dir, "data": data_dir, "features": features_dir}
    for split in explained_splits(params):
        products[f"relevance of {split}"] = run_dir / "relevance" / INDEX.format(split)
    inputs = {name: record_of(product) for name, product in products.items()}
    place = out / SHARDS_FOLDER
    if gather:
        manifests = open_shards(place, gather, SHARD_KIND)
        check_shards(place, manifests[0], settings, inputs)
        for one in all_shards(gather):
            for table in sorted((place / str(one)).rglob("*.csv")):
                with atomic_path(out / table.relative_to(place / str(one))) as temporary:
                    shutil.copyfile(table, temporary)
    else:
        own = names if shard is None else names[shard.number - 1 :: shard.of]
        target = out if shard is None else place / str(shard)
        with ExitStack() as stack:
            stores = open_stores(stack, run_dir, params)
            context = Context(stores, run_dir, data_dir, features_dir, params)
            for name in own:
                rows = measure(name, context)
                write_sums(target / DETAILS / f"{name}.csv", name, rows)
                write_measurements(target / f"{name}.csv", rows)
            if shard is None or shard.number == 1:
                words = judged_words(context)
                write_rows(target / DETAILS / WORDS, JudgedWord._fields, words)
    if shard is not None:
        (target / DETAILS).mkdir(parents=True, exist_ok=True)
        write_manifest(target, SHARD_KIND, params=settings, inputs=inputs, folders=[DETAILS])
        return
    tables = [out / f"{name}.csv" for name in names]
    tables += [out / DETAILS / name for name in (*(table.name for table in tables), WORDS)]
    for table in tables:
        seal_file(table, TABLE_KIND, params=settings, inputs=inputs)
    remove_shards(place)
