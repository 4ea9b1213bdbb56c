"""The report: a site that opens from disk, and the same on one page that needs no other file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from capscope.data.annotations import open_dataset
from capscope.files import (
    atomic_path,
    read_json,
    read_manifest,
    record_of,
    write_manifest,
    write_text,
)
from capscope.report.answers import answer_tables, answers
from capscope.report.charts import Figure, save_figure
from capscope.report.contributions import contribution_figure
from capscope.report.curves import validation_curves
from capscope.report.evidence import Evidence
from capscope.report.figures import explainer_bars, training_curves
from capscope.report.gallery import Gallery, entry
from capscope.report.grids import headline_grid, matrix_grids, paired_tables
from capscope.report.headline import Number, headline
from capscope.report.portrait import PICTURE, call, picture, picture_url
from capscope.report.results import Results, RunResults, read_results
from capscope.report.run_time import write_run_times
from capscope.report.table import Table, write_table
from capscope.report.tables import all_tables
from capscope.report.template import ASSETS, asset, render, with_pages

PAGE, SINGLE = "index.html", "report.html"
FOLDERS = ("assets", "gallery", "runs", "tables", "figures")
ON_SINGLE_PAGE = 8
"""Images of the gallery on the single page, if they do not take more than this many bytes."""
LARGEST = 6_000_000
PAGES = {
    "index.html": "Results",
    "matrix.html": "Matrix",
    "gallery.html": "Gallery",
    "comparison.html": "Comparison",
    "runs.html": "Runs",
    "tables.html": "Tables",
}
"""Pages of the site; a comparison is of two or more runs."""
COMPARISON = "comparison.html"


@dataclass(frozen=True)
class RunPage:
    """What the page of a run shows."""

    run: RunResults
    numbers: Sequence[Number]
    figures: Mapping[str, Figure]
    """By the names of their files."""
    details: Sequence[Table]
    provenance: Sequence[tuple[str, str]]


def write_report(folder: Path, published: Path, params: dict[str, Any], out: Path) -> Results:
    """Write tables, figures, the site and the single page from the results of a data set.

    Parameters
    ----------
    folder : Path
        ``results/<data set>``.
    published : Path
        Folder of CSV files with published values.
    params : dict
        ``report`` and where the images of the data set are.
    out : Path
        Gets the pages, ``report.html`` (self-contained), and the folders that they need. What
        explaining cost goes to the logs, too.
    """
    results = read_results(folder, published)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    evidence = Evidence.of(results)
    found = answers(evidence)
    tests = paired_tables(evidence)
    tables = [*all_tables(results), *answer_tables(found), *tests]
    for table in tables:
        write_table(table, out / "tables")
    tidy = {"matrix": evidence.matrix, "paired_tests": evidence.tests}
    tidy["validation"] = validation_curves(results)
    for name, frame in tidy.items():
        write_text(out / "tables" / f"{name}.csv", frame.to_csv(index=False, float_format="%.6g"))
    numbers = headline(results)
    pages = [
        RunPage(
            run,
            numbers[run.title],
            _figures(results, run, out / "figures"),
            [table for table in tables if table.run == run.name],
            _provenance(run),
        )
        for run in tqdm(results.runs, desc="figures", unit="run")
    ]
    dataset = open_dataset(folder / "data", params)
    gallery = Gallery(results, dataset, params["report"]["images"])
    kept = _write_gallery(gallery, out)
    compared = folder / "scores" / COMPARISON
    (out / COMPARISON).unlink(missing_ok=True)
    names = [name for name in PAGES if name != COMPARISON or compared.exists()]
    shared = [table for table in tables if not table.run and not _has_own_page(table)]
    values = {
        "dataset": results.dataset,
        "subject": results.dataset,
        "runs": results.runs,
        "explainers": gallery.explainers,
        "skipped": read_manifest(folder / "data", "data").get("skipped", 0),
        "split": evidence.split,
        "answers": found,
        "grids": list(matrix_grids(evidence)),
        "tests": tests,
        "parameters": json.dumps(_parameters(folder), indent=1),
    }
    _write_site(out, values, evidence, pages, shared, kept, names)
    if COMPARISON in names:
        links = _frame(PAGES[COMPARISON], COMPARISON, "", names)["links"]
        write_text(out / COMPARISON, with_pages(compared.read_text("utf-8"), links))
    _write_single_page(out, values, evidence, pages, shared, gallery, kept)
    write_run_times(evidence.times, folder / "logs")
    _seal(folder, results, published, params["report"], out)
    return results


def _seal(
    folder: Path, results: Results, published: Path, params: dict[str, Any], out: Path
) -> None:
    """Write the manifest of the report."""
    made_from = {name: record_of(folder / name) for name in ("data", "scores")}
    made_from |= {f"published {path.stem}": path for path in sorted(published.glob("*.csv"))}
    for run in results.runs:
        for measure in run.benchmarks:
            table = run.folder / "benchmarks" / f"{measure}.csv"
            made_from[f"{run.name} {measure}"] = record_of(table)
    inputs = {name: path for name, path in made_from.items() if path.exists()}
    folders = [name for name in FOLDERS if (out / name).is_dir()]
    write_manifest(out, "report", params=params, inputs=inputs, folders=folders)


def _has_own_page(table: Table) -> bool:
    return table.name.startswith(("matrix_", "answer", "lrp_against_"))


def _write_site(
    out: Path,
    values: dict[str, Any],
    evidence: Evidence,
    pages: Sequence[RunPage],
    tables: Sequence[Table],
    kept: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> None:
    """Write the pages of the site and what they share; of those of `names`, all that are made."""
    for name in ASSETS:
        write_text(out / "assets" / name, asset(name))
    sample = kept[0] if kept else None
    about, index = "gallery/about.js", "gallery/index.js"
    own: dict[str, dict[str, Any]] = {
        "index.html": {
            "overview": headline_grid(evidence, evidence.split, "runs/{}.html"),
            "sample": sample and sample["id"],
            "sample_word": sample and _striking(sample),
            "scripts": ["viewer.js"],
            "data": [about] if sample else [],
        },
        "gallery.html": {"scripts": ["viewer.js", "gallery.js"], "data": [about, index]},
        "tables.html": {"tables": tables},
    }
    for name in names:
        if name == COMPARISON:
            continue
        section = "results.jinja" if name == PAGE else name.replace(".html", ".jinja")
        settings = {"scripts": [], "data": []} | own.get(name, {})
        frame = _frame(PAGES[name], name, "", names)
        text = render("page.jinja", **values, **frame, **settings, section=section)
        write_text(out / name, text)
    for page in pages:
        frame = _frame(page.run.title, "", "../", names)
        own_values = vars(page) | {"scripts": [], "data": []}
        text = render("page.jinja", **values, **frame, **own_values, section="run.jinja")
        write_text(out / "runs" / f"{page.run.name}.html", text)


def _frame(title: str, current: str, root: str, names: Sequence[str]) -> dict[str, Any]:
    links = [
        {"url": root + name, "text": PAGES[name], "current": name == current} for name in names
    ]
    home = f"{root}{PAGE}"
    return {"title": title, "links": links, "home": home, "root": root, "single": False}


def _write_single_page(
    out: Path,
    values: dict[str, Any],
    evidence: Evidence,
    pages: Sequence[RunPage],
    tables: Sequence[Table],
    gallery: Gallery,
    kept: Sequence[dict[str, Any]],
) -> None:
    """Write all sections as one page, with some images of the gallery in it."""
    statements = [call("about", gallery.about())]
    statements += [call("image", image) for image in kept]
    listed = [entry(image) for image in kept]
    statements.append(call("list", listed))
    links = [
        {"url": f"#{name}", "text": text, "current": False}
        for name, text in (
            ("results", "Results"),
            ("gallery", "Gallery"),
            ("matrix", "Matrix"),
            ("tables", "Tables"),
            ("runs", "Runs"),
        )
    ]
    if len(pages) == 1:
        tables = [*tables, *pages[0].details]
    text = render(
        "report.jinja",
        **values,
        title=values["dataset"],
        links=links,
        overview=headline_grid(evidence, evidence.split, "#{}"),
        tables=tables,
        run_pages=pages,
        sample=None,
        data="".join(statements),
    )
    write_text(out / SINGLE, text)


def _write_gallery(gallery: Gallery, out: Path) -> list[dict[str, Any]]:
    """Write a small script and a picture per image, and the list that is searched.

    Returns
    -------
    list of dict
        The images for the single page, evenly chosen, with their pictures; one at least.
    """
    folder = out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {round(k * len(gallery) / ON_SINGLE_PAGE) for k in range(ON_SINGLE_PAGE)}
    entries: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    room = LARGEST
    images = tqdm(gallery, total=len(gallery), desc="gallery", unit="image")
    for number, (pixels, image) in enumerate(images):
        file = f"{image['id']}.webp"
        with atomic_path(folder / file) as temporary:
            temporary.write_bytes(picture(pixels, PICTURE))
        url = {"picture": f"gallery/{file}"}
        statement = call("image", image | url)
        write_text(folder / f"{image['id']}.js", statement)
        entries.append(entry(image | url))
        if number in wanted and (len(statement) <= room or not kept):
            kept.append(image | {"picture": picture_url(pixels, PICTURE)})
            room -= len(statement)
    write_text(folder / "about.js", call("about", gallery.about()))
    write_text(folder / "index.js", call("list", entries))
    return kept


def _striking(image: dict[str, Any]) -> int:
    """Return the position of the first object word that can be judged, or of the first word."""
    verdicts = image["captions"][0]["verdicts"]
    return next((place for place, verdict in enumerate(verdicts) if verdict), 0)


def _figures(results: Results, run: RunResults, folder: Path) -> dict[str, Figure]:
    """Draw the figures of a run into a folder, and return them by the names of their files."""
    drawn = {
        "training": training_curves(run),
        "explainers": explainer_bars(results, run),
        "contributions": contribution_figure(results, run),
    }
    found = {f"{run.name}_{name}.svg": figure for name, figure in drawn.items() if figure}
    for name, figure in found.items():
        save_figure(figure, folder / name)
    return found


def _provenance(run: RunResults) -> list[tuple[str, str]]:
    manifest = read_json(run.folder / "manifest.json")
    facts = [(f"input {name}", value[:16]) for name, value in manifest["inputs"].items()]
    facts.append(("parameters", manifest["params_sha256"][:16]))
    return [*facts, *manifest["software"].items()]


def _parameters(folder: Path) -> Any:
    """Return what the workflow ran with, where it was the workflow."""
    path = folder / "params.json"
    return read_json(path) if path.exists() else {}
