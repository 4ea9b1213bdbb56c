"""``capscope backbone``: train the small grid network on scenes."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, held, params_options


@click.command()
@params_options
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="Folder of the network.")
def command(
    params_files: tuple[Path, ...], assignments: tuple[str, ...], data_dir: Path, out: Path
) -> None:
    """Train the small grid network on scenes; resumes by itself after an interruption."""
    from capscope.features.backbone import train_backbone
    from capscope.params import load_params

    train_backbone(data_dir, load_params(params_files, assignments)["backbone"], out)
