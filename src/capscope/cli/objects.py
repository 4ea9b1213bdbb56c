"""``capscope objects``: what every object of an image speaks for every word and the caption."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, hold, params_options, run_data_options


@click.command()
@params_options
@run_data_options
@click.option("--out", type=FILE, help="A CSV.  [default: RUN/relevance/objects.csv]")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    run_dir: Path,
    data_dir: Path,
    features_dir: Path,
    out: Path | None,
) -> None:
    """Sum the stored relevance over the visual features of each object.

    Objects are made as `benchmarks.latent_objects` says: by class, overlap or mask. Position -1 is
    the whole caption, the sum over its words.
    """
    from contextlib import ExitStack

    from capscope.benchmarks.context import Context
    from capscope.benchmarks.latent_objects import ObjectRelevance, object_rows
    from capscope.benchmarks.measurement import write_rows
    from capscope.benchmarks.run import open_stores
    from capscope.models.checkpoint import name_of
    from capscope.params import load_params

    params = load_params(params_files, assignments, run=name_of(run_dir))
    out = out or run_dir / "relevance" / "objects.csv"
    hold(out)
    with ExitStack() as stack:
        stores = open_stores(stack, run_dir, params)
        context = Context(stores, run_dir, data_dir, features_dir, params)
        rows = object_rows(context, params["benchmarks"]["latent_objects"])
        write_rows(out, ObjectRelevance._fields, rows)
    click.echo(f"-> {out}")
