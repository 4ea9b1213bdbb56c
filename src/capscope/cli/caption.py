"""``capscope caption``: caption your own image."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FOLDER, IMAGES, decoding_options, decoding_settings, run_option


@click.command()
@click.argument("images", nargs=-1, required=True, type=IMAGES)
@run_option
@decoding_options
@click.option("--out", type=FOLDER, help="Gets each image with its captions written below, JPEG.")
def command(
    images: tuple[Path, ...],
    run_dir: Path,
    beam: int | None,
    assignments: tuple[str, ...],
    out: Path | None,
) -> None:
    """Caption your own images (files or folders) with a trained run.

    A decoding method that finds several captions prints them all, the best one first.

    \b
    capscope caption photo.jpg
    capscope caption photo.jpg --set method=diverse_beam --out captioned
    capscope caption holiday/ --run results/coco_sample/runs/gridtd/xe/seed1
    """
    from capscope.data.images import read_image
    from capscope.explain.photograph import Photographer, find_images
    from capscope.report.captioned import save_captioned

    paths = find_images(images)
    photographer = Photographer(run_dir, decoding_settings(beam, assignments))
    for path in paths:
        captions = photographer.captions(path)
        for caption in captions:
            click.echo(f"{path}: {caption}")
        if out is not None:
            save_captioned(read_image(path), captions, out / f"{path.stem}.jpg")
