"""``capscope methods``: explanation methods over several data sets, side by side."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, hold

LATENT = ("latent_ablation", "latent_correlation", "latent_objects")


@click.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER, metavar="RESULTS...")
@click.option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    default=LATENT,
    show_default=True,
    help="Whose measures are shown; repeatable.",
)
@click.option("--split", default="test", show_default=True, help="Split.")
@click.option(
    "--out", type=FOLDER, default=Path("results/methods"), show_default=True, help="Gets tables."
)
def command(folders: tuple[Path, ...], benchmarks: tuple[str, ...], split: str, out: Path) -> None:
    """Lay methods x measures x data sets out in one table, with the tests between methods.

    \b
    capscope methods results/latent results/coco2017 results/flickr30k
    """
    from capscope.report.methods import method_tables
    from capscope.report.table import write_table

    hold(out)
    for table in method_tables(folders, benchmarks, split):
        write_table(table, out)
        click.echo(f"-> {out / table.name}.csv, .md, .tex")
