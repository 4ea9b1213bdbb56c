"""``capscope vocabulary``: build the vocabulary and encode the references."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, held, params_options


@click.command()
@params_options
@click.option("--system", required=True, help="Name of the system in the parameters.")
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="Folder of the vocabulary.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    system: str,
    data_dir: Path,
    out: Path,
) -> None:
    """Build the vocabulary and encode the references."""
    from capscope.data.captions import prepare_captions
    from capscope.params import load_params

    prepare_captions(out, data_dir, load_params(params_files, assignments), system)
