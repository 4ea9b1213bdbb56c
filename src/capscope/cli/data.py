"""``capscope data``: draw scenes, or check a Karpathy JSON and its images."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, params_options


@click.command()
@params_options
@click.option("--out", type=FOLDER, required=True, help="Folder of the data set.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    help="Processes that draw, threads that read.",
)
def command(
    params_files: tuple[Path, ...], assignments: tuple[str, ...], out: Path, workers: int
) -> None:
    """Prepare a data set: draw scenes, or check a Karpathy JSON and its images."""
    from capscope.params import load_params

    settings = load_params(params_files, assignments)["dataset"]
    if settings["reader"] == "scenes":
        from capscope.data.scenes import write_scenes

        write_scenes(out, settings["scenes"], workers)
    else:
        from capscope.data.karpathy import prepare_karpathy

        prepare_karpathy(out, settings, workers)
