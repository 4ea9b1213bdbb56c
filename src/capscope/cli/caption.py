"""``capscope caption``: caption your own image."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import IMAGES, decoding_options, decoding_settings, run_option


@click.command()
@click.argument("images", nargs=-1, required=True, type=IMAGES)
@run_option
@decoding_options
def command(
    images: tuple[Path, ...], run_dir: Path, beam: int | None, assignments: tuple[str, ...]
) -> None:
    """Caption your own images (files or folders) with a trained run.

    A decoding method that finds several captions prints them all, the best one first.

    \b
    capscope caption photo.jpg
    capscope caption photo.jpg --set method=diverse_beam
    capscope caption holiday/ --run results/coco_sample/runs/gridtd/xe/seed1
    """
    from capscope.explain.photograph import Photographer, find_images

    paths = find_images(images)
    photographer = Photographer(run_dir, decoding_settings(beam, assignments))
    for path in paths:
        for caption in photographer.captions(path):
            click.echo(f"{path}: {caption}")
