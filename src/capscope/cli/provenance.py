"""``capscope provenance``: from a number back to what it was made from."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, FOLDER


@click.command()
@click.argument("table", type=FILE, required=False)
@click.argument("row", type=click.IntRange(1), required=False)
@click.option(
    "--crate",
    type=FOLDER,
    help="Instead: describe all results below this folder, such as results/scenes, as an RO-Crate "
    "(ro-crate-metadata.json), which archives and workflow registries read.",
)
def command(table: Path | None, row: int | None, crate: Path | None) -> None:
    """Say how ROW of TABLE, counted from 1 below the header, came about.

    Prints the table's row, and for everything that it was made from, back to the data: parameters
    with their seeds, versions of code and packages, device, and hashes.
    """
    from capscope.provenance import chain_of, describe, results_of, row_of, write_crate

    if crate is not None:
        click.echo(f"crate: {write_crate(crate)}")
        return
    if table is None or row is None:
        raise click.UsageError("give TABLE and ROW, or --crate")
    folder = results_of(table)
    click.echo(", ".join(f"{key}={value}" for key, value in row_of(table, row).items() if value))
    told: set[Path] = set()
    for depth, name, record in chain_of(table, row):
        space = "  " * depth
        if record is None:
            click.echo(f"{space}{name}: from elsewhere")
            continue
        first, *others = describe(record, folder)
        click.echo(f"{space}{name} <- {first}")
        if record.path not in told:
            click.echo("\n".join(f"{space}    {line}" for line in others))
        told.add(record.path)
