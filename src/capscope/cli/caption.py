"""``capscope caption``: caption your own image."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import IMAGES, run_option


@click.command()
@click.argument("images", nargs=-1, required=True, type=IMAGES)
@run_option
@click.option("--beam", type=click.IntRange(1), help="Beam width; the run's own by default.")
def command(images: tuple[Path, ...], run_dir: Path, beam: int | None) -> None:
    """Caption your own images (files or folders) with a trained run.

    \b
    capscope caption photo.jpg
    capscope caption holiday/ --run results/coco_sample/runs/gridtd/xe/seed1
    """
    from capscope.explain.photograph import Photographer, find_images

    paths = find_images(images)
    settings = {} if beam is None else {"method": "beam", "beam": beam}
    photographer = Photographer(run_dir, settings)
    for path in paths:
        click.echo(f"{path}: {photographer.caption(path).caption}")
