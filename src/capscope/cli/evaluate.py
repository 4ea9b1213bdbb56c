"""``capscope evaluate``: score generated captions."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, params_options


@click.command()
@params_options
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option(
    "--run",
    "run_dirs",
    type=FOLDER,
    required=True,
    multiple=True,
    help="A run with decoded captions; give all runs to be compared.",
)
@click.option("--out", type=FOLDER, required=True, help="Gets captions.csv and per_image.csv.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    data_dir: Path,
    run_dirs: tuple[Path, ...],
    out: Path,
) -> None:
    """Score generated captions against the references."""
    from capscope.metrics.runs import evaluate_runs
    from capscope.metrics.summary import summary
    from capscope.params import load_params

    rows = evaluate_runs(data_dir, run_dirs, load_params(params_files, assignments), out)
    click.echo(summary(rows))
