"""The benchmarks of one run, from its relevance stores to a table."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from capscope.benchmarks.conservation import measure_conservation
from capscope.benchmarks.ground_truth import measure_ground_truth
from capscope.benchmarks.measurement import write_measurements
from capscope.benchmarks.removal import measure_removal
from capscope.data.annotations import open_dataset
from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError
from capscope.explain.split import open_subject
from capscope.explain.store import RelevanceStore
from capscope.files import read_json
from capscope.models.checkpoint import INFO_FILE


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
    name : {"ground-truth", "removal", "conservation"}
    run_dir, data_dir, features_dir : Path
        The run with its relevance stores, its data set, and the features with their extractor.
    out : Path
        CSV, tidy: explainer, resolution, word_kind, split, measure, value, low, high, n.
    params : dict
    """
    settings = params["benchmarks"]
    bootstrap = {"resamples": settings["bootstrap"], "seed": settings["seed"]}
    with ExitStack() as stack:
        stores = open_stores(stack, run_dir, params)
        if name == "conservation":
            rows = measure_conservation(stores, **bootstrap)
        elif name == "ground-truth":
            info = read_json(run_dir / INFO_FILE)
            rows = measure_ground_truth(
                stores,
                data_dir,
                open_dataset(data_dir, params),
                Vocabulary.from_json(info["vocabulary"], str(run_dir / INFO_FILE)),
                sigma=settings["sigma"],
                **bootstrap,
            )
        else:
            _, subject = open_subject(run_dir, features_dir)
            rows = measure_removal(
                stores,
                subject,
                data_dir,
                open_dataset(data_dir, params),
                images=settings["removal_images"],
                **bootstrap,
            )
    write_measurements(out, rows)
