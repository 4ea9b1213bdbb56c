"""``capscope detector``: train the small detector on scenes."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, held, params_options


@click.command()
@params_options
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option("--backbone", type=FOLDER, required=True, help="From `capscope backbone`.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="Folder of the detector.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    data_dir: Path,
    backbone: Path,
    out: Path,
) -> None:
    """Train the small detector on the maps of the small grid network, on scenes."""
    from capscope.features.detector.train_small import train_detector
    from capscope.params import load_params

    params = load_params(params_files, assignments)
    size = params["features"]["regions"]["image_size"]
    train_detector(data_dir, backbone, params["detector"], size, out)
