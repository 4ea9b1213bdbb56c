"""The results page: one file, no network, opens from disk."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from capscope import __version__
from capscope.data.annotations import open_dataset
from capscope.files import read_json, read_manifest, write_text
from capscope.report.figures import explainer_bars, save_figure, training_curves
from capscope.report.gallery import cards
from capscope.report.headline import headline
from capscope.report.results import Results, RunResults, read_results
from capscope.report.run_time import write_run_times
from capscope.report.table import write_table
from capscope.report.tables import all_tables
from capscope.report.template import render

PAGE = "index.html"


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    title: str
    url: str


def write_report(folder: Path, published: Path, params: dict[str, Any], out: Path) -> Results:
    """Write tables, figures and the page from the result files of a data set.

    Parameters
    ----------
    folder : Path
        ``results/<data set>``.
    published : Path
        Folder of CSV files with published values.
    params : dict
        ``report`` and where the images of the data set are.
    out : Path
        Gets ``index.html``, ``tables/`` and ``figures/``. What explaining cost goes to the logs.
    """
    results = read_results(folder, published)
    dataset = open_dataset(folder / "data", params)
    tables = all_tables(results)
    for table in tables:
        write_table(table, out / "tables")
    galleries = []
    pictures: list[Picture] = []
    for run in tqdm(results.runs, desc="report", unit="run"):
        vocabulary = run.info["vocabulary"]["words"]
        images = params["report"]["images"]
        galleries.append((run, cards(results, run, dataset, vocabulary, images)))
        pictures += _pictures(results, run, out / "figures")
    page = render(
        "page.jinja",
        version=__version__,
        dataset=results.dataset,
        skipped=read_manifest(folder / "data", "data").get("skipped", 0),
        headline=headline(results),
        tables=[table for table in tables if len(results.runs) == 1 or not table.detail],
        pictures=pictures,
        galleries=galleries,
        provenance=[_provenance(run) for run in results.runs],
    )
    write_text(out / PAGE, page)
    write_run_times(results, folder / "logs")
    return results


def _pictures(results: Results, run: RunResults, folder: Path) -> Iterator[Picture]:
    """Draw the figures of a run into a folder, and yield them for the page."""
    drawn = {
        "explainers": ("What explainers find", explainer_bars(results, run)),
        "training": ("Training", training_curves(run)),
    }
    for name, (title, figure) in drawn.items():
        if figure is not None:
            path = folder / f"{run.system}_{run.stage}_seed{run.seed}_{name}.png"
            save_figure(figure, path)
            content = base64.b64encode(path.read_bytes()).decode("ascii")
            yield Picture(f"{title}: {run.title}", "data:image/png;base64," + content)


def _provenance(run: RunResults) -> tuple[str, list[tuple[str, str]]]:
    manifest = read_json(run.folder / "manifest.json")
    facts = [(f"input {name}", value[:16]) for name, value in manifest["inputs"].items()]
    facts.append(("parameters", manifest["params_sha256"][:16]))
    return run.title, [*facts, *manifest["software"].items()]
