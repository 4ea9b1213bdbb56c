"""``capscope verify``: compare results with their manifests."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from capscope.cli.options import FOLDER


@click.command()
@click.argument("folder", type=FOLDER, default=Path("results"))
def command(folder: Path) -> None:
    """Compare all results below FOLDER with their manifests, every byte.

    Says what is damaged, or was made from something else than is there, and what to delete so that
    `snakemake all` makes it again. Ends with status 1 if there is anything.
    """
    from capscope.records import Records

    records = Records(folder)
    problems = list(records.problems())
    for problem in problems:
        click.echo(f"{problem.what}\n    {problem.remedy}")
    count = len(records.paths)
    click.echo(f"{count} manifests verified, {len(problems)} problems", err=True)
    sys.exit(bool(problems))
