"""The result files of a data set, found and read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from capscope.errors import CapscopeError
from capscope.files import MANIFEST, check_file, read_json, read_manifest

MODEL_FREE = frozenset({"random", "centre"})
"""Controls of the benchmarks that need no explainer."""
STAGES = ("xe", "lrp_xe", "scst", "lrp_scst")
"""Stages in the order of training; others follow by name."""


@dataclass(frozen=True)
class RunResults:
    """What one run left on disk."""

    folder: Path
    system: str
    stage: str
    seed: int
    info: dict[str, Any]
    benchmarks: dict[str, pd.DataFrame]
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    """What headline measures are of each image, by benchmark."""
    words: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Which words of the explained captions are right: split, image_id, position, verdict, ..."""

    @property
    def title(self) -> str:
        """Return what tables call the run."""
        return f"{self.system} {self.stage} (seed {self.seed})"

    @property
    def name(self) -> str:
        """Return what files of the report call the run."""
        return f"{self.system}_{self.stage}_seed{self.seed}"

    @property
    def captioner(self) -> str:
        """Return the architecture behind the system."""
        return str(self.info.get("captioner", self.system))


@dataclass(frozen=True)
class Results:
    """All results of one data set."""

    folder: Path
    dataset: str
    captions: pd.DataFrame
    """``scores/captions.csv``."""
    per_image: pd.DataFrame
    """``scores/per_image.csv``."""
    comparisons: pd.DataFrame
    """``scores/comparisons.csv``: paired tests of systems; empty with a single one."""
    seeds: pd.DataFrame
    """``scores/seeds.csv``: means and spreads over seeds."""
    published: pd.DataFrame
    runs: tuple[RunResults, ...]
    titles: dict[str, str]
    """What tables call the explainers."""
    controls: frozenset[str]
    """Explainers that should not find anything."""
    reader: str = ""
    """What read the data set: ``coco2014``, whatever the data set is called; of scenes empty."""


def read_results(folder: Path, published: Path) -> Results:
    """Read every result file under ``results/<data set>``.

    Raises
    ------
    CapscopeError
        Naming the file that is missing and the command that makes it.
    """
    if (folder / "scores" / MANIFEST).exists():  # tables that were put there by hand have none
        read_manifest(folder / "scores", "scores")
    captions = _read_table(folder / "scores" / "captions.csv", "capscope evaluate")
    per_image, comparisons, seeds = (
        _read_table(folder / "scores" / name, "capscope evaluate")
        for name in ("per_image.csv", "comparisons.csv", "seeds.csv")
    )
    manifests = sorted(folder.glob(f"runs/*/*/seed*/{MANIFEST}"))
    scored = {
        (str(row.system), str(row.stage), str(row.seed))
        for row in captions.itertuples()
        if row.system != "human"
    }
    runs = [_read_run(path.parent) for path in manifests]
    runs.sort(key=lambda run: (run.system, _place(run.stage), run.seed))
    chosen = tuple(run for run in runs if (run.system, run.stage, str(run.seed)) in scored)
    if not chosen:
        raise CapscopeError(f"{folder} has no scored run: run `snakemake all`, or train first")
    explained = [read_json(path) for run in chosen for path in _explained(run.folder)]
    tables = [_read_table(path, "git checkout") for path in sorted(published.glob("*.csv"))]
    return Results(
        folder=folder,
        dataset=str(captions["dataset"].iloc[0]),
        captions=captions,
        per_image=per_image,
        comparisons=comparisons,
        seeds=seeds,
        published=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(),
        runs=chosen,
        titles={manifest["explainer"]: manifest["title"] for manifest in explained},
        controls=frozenset(m["explainer"] for m in explained if m["control"]) | MODEL_FREE,
        reader=_reader(folder / "data" / MANIFEST),
    )


def _reader(manifest: Path) -> str:
    """Return the reader that a data set's manifest names, nothing where there is none."""
    return str(read_json(manifest)["params"].get("reader", "")) if manifest.exists() else ""


def _place(stage: str) -> tuple[int, str]:
    """Return where a stage stands among others: in the order of training."""
    return STAGES.index(stage) if stage in STAGES else len(STAGES), stage


def _explained(run: Path) -> Iterator[Path]:
    """Yield the manifests of a run's relevance stores, explainers in the order of the run."""
    for index in sorted(run.glob("relevance/*.json")):
        for name in read_json(index)["explainers"]:
            yield run / "relevance" / name / index.stem / MANIFEST


def _read_run(folder: Path) -> RunResults:
    read_manifest(folder, "run")
    info = read_json(folder / "model.json")
    benchmarks = {
        path.stem: _read_table(path, "capscope benchmark")
        for path in sorted(folder.glob("benchmarks/*.csv"))
    }
    details = {
        path.stem: _read_table(path, "capscope benchmark")
        for path in sorted(folder.glob("benchmarks/details/*.csv"))
    }
    words = details.pop("words", pd.DataFrame())
    key = (info["system"], info["stage"], info["seed"])
    return RunResults(folder, *key, info, benchmarks, details, words)


def _read_table(path: Path, command: str) -> pd.DataFrame:
    check_file(path, "benchmark")
    try:
        return pd.read_csv(path, dtype={"seed": "string"})
    except FileNotFoundError as error:
        raise CapscopeError(f"{path} does not exist: run `{command}` first") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CapscopeError(f"{path} is not a CSV table: {error}") from error
