"""``capscope data``: draw scenes, or check annotations and images of another data set."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, held, params_options


@click.command()
@params_options
@click.option("--out", type=FOLDER, callback=held, help="Folder of the data set.")
@click.option(
    "--download",
    is_flag=True,
    help="Only fetch and unpack the public files of the data set (dataset.downloads). A transfer "
    "that broke off goes on.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    help="Processes that draw, threads that read.",
)
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    out: Path | None,
    download: bool,
    workers: int,
) -> None:
    """Prepare a data set: draw scenes, or check annotations and images of another."""
    from capscope.params import load_params

    settings = load_params(params_files, assignments)["dataset"]
    if download:
        from capscope.data.fetch import fetch_downloads

        fetched = [str(path) for path in fetch_downloads(settings)]
        click.echo("\n".join(["fetched:", *fetched]) if fetched else "everything is there already")
    elif out is None:
        raise click.UsageError("give --out, the folder of the data set")
    elif settings["reader"] == "scenes":
        from capscope.data.scenes import write_scenes

        write_scenes(out, settings["scenes"], workers)
    else:
        from capscope.data.prepare import prepare_dataset

        prepare_dataset(out, settings, workers)
