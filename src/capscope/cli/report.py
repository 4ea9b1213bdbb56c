"""``capscope report``: collect results into tables and one page."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, hold, params_options


@click.command()
@params_options
@click.option("--results", "folder", type=FOLDER, required=True, help="Such as results/scenes.")
@click.option(
    "--published",
    type=FOLDER,
    default=Path("results/published"),
    show_default=True,
    help="Folder of CSV files with published values.",
)
@click.option(
    "--out", type=FOLDER, help="Gets index.html and the other pages.  [default: RESULTS/report]"
)
@click.option("--summary", is_flag=True, help="Only print the headline of finished results.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    folder: Path,
    published: Path,
    out: Path | None,
    summary: bool,
) -> None:
    """Collect the results into tables, a site, and one self-contained page."""
    from capscope.params import load_params
    from capscope.report.headline import as_text
    from capscope.report.results import read_results
    from capscope.report.site import PAGE, write_report

    out = out or folder / "report"
    if summary:
        results = read_results(folder, published)
    else:
        hold(out)
        params = load_params(params_files, assignments)
        results = write_report(folder, published, params, out)
    click.echo(as_text(results))
    click.echo(f"page: {out / PAGE}")
