"""``capscope evaluate``: score generated captions."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, FOLDER, params_options


@click.command()
@params_options
@click.option("--data", "data_dir", type=FOLDER, help="From `capscope data`.")
@click.option(
    "--run",
    "run_dirs",
    type=FOLDER,
    multiple=True,
    help="A run with decoded captions; give all runs to be compared.",
)
@click.option("--references", type=FILE, help="Instead of --data: COCO captions JSON.")
@click.option(
    "--candidates",
    type=FILE,
    multiple=True,
    help="Instead of --run: COCO results JSON; give all files to be compared.",
)
@click.option("--out", type=FOLDER, help="Gets captions.csv and per_image.csv.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    data_dir: Path | None,
    run_dirs: tuple[Path, ...],
    references: Path | None,
    candidates: tuple[Path, ...],
    out: Path | None,
) -> None:
    """Score generated captions against the references.

    \b
    Of runs:       capscope evaluate --data DIR --run DIR --run DIR --out DIR
    Of any files:  capscope evaluate --references captions.json --candidates results.json
    """
    from capscope.metrics.runs import evaluate_files, evaluate_runs
    from capscope.metrics.summary import summary
    from capscope.params import load_params

    params = load_params(params_files, assignments)
    if data_dir and run_dirs and out and not references and not candidates:
        rows = evaluate_runs(data_dir, run_dirs, params, out)
    elif references and candidates and not data_dir and not run_dirs:
        rows = evaluate_files(references, candidates, params, out)
    else:
        raise click.UsageError(
            "give --data, --run and --out, or --references and --candidates (see --help)"
        )
    click.echo(summary(rows))
