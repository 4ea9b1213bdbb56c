"""``capscope features``: extract visual features into a feature store."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, params_options


@click.command()
@params_options
@click.option(
    "--kind",
    type=click.Choice(["grid"]),
    default="grid",
    show_default=True,
    help="What is taken from an image: grid, the cells of a convolutional network.",
)
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option("--backbone", type=FOLDER, help="From `capscope backbone`, for weights: trained.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the feature store.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    kind: str,
    data_dir: Path,
    backbone: Path | None,
    out: Path,
) -> None:
    """Extract visual features into a feature store."""
    from capscope.features.extract import prepare_features
    from capscope.params import load_params

    prepare_features(out, data_dir, load_params(params_files, assignments), backbone)
