"""``capscope spice-models``: fetch the parser that SPICE needs."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, hold, params_options


@click.command()
@params_options
@click.option("--out", type=FOLDER, help="Instead of metrics.spice_options.models.")
def command(params_files: tuple[Path, ...], assignments: tuple[str, ...], out: Path | None) -> None:
    """Fetch the code and models of CoreNLP 3.6.0 (385 MB), once for all data sets.

    SPICE parses captions with them; they are under the GPL and in no package. A transfer that
    broke off goes on. Without a network, put the archive or its two jars into the folder.
    """
    from capscope.metrics.spice_models import fetch_spice_models, models_folder
    from capscope.params import load_params

    options = load_params(params_files, assignments)["metrics"]["spice_options"]
    folder = out or models_folder(options)
    hold(folder)
    new = fetch_spice_models(folder, options["addresses"], options["checksum"])
    click.echo(f"the models of SPICE {'are now' if new else 'were already'} in {folder}")
