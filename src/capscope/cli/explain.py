"""``capscope explain``: show which part of your own image made each word."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import IMAGES, decoding_options, decoding_settings, run_option


@click.command()
@click.argument("images", nargs=-1, required=True, type=IMAGES)
@run_option
@decoding_options
@click.option(
    "--explainer",
    "explainers",
    multiple=True,
    default=["lrp"],
    show_default=True,
    help="Method, such as attention or gradcam; several are shown below each other.",
)
@click.option(
    "--head", type=click.IntRange(0), help="Show one head of attention; their mean by default."
)
@click.option("--word", help="Show one word of the caption only.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A .png (one image), an animation (.gif, .apng, .webp) with a frame a word, a .html page, "
    "or a folder for PNGs; by default NAME.explained.png in the current folder.",
)
def command(
    images: tuple[Path, ...],
    run_dir: Path,
    beam: int | None,
    assignments: tuple[str, ...],
    explainers: tuple[str, ...],
    head: int | None,
    word: str | None,
    out: Path | None,
) -> None:
    """Caption your own images and show which part of them made each word.

    Of several images, those whose caption is empty or lacks the word are left out.

    \b
    capscope explain photo.jpg
    capscope explain photo.jpg --explainer lrp --explainer attention --explainer gradcam
    capscope explain photo.jpg --explainer attention --out photo.gif
    capscope explain photo.jpg --word dog
    capscope explain holiday/ --out holiday.html
    """
    from capscope.errors import CapscopeError
    from capscope.explain.photograph import (
        NothingToExplainError,
        Photographer,
        find_images,
    )
    from capscope.report.animation import ANIMATED, frames, save_animation
    from capscope.report.montage import montage, save_png
    from capscope.report.own_images import card_of, write_page
    from capscope.report.views import View

    paths = find_images(images)
    page = out is not None and out.suffix == ".html"
    animated = out is not None and out.suffix in ANIMATED
    single = out is not None and (animated or out.suffix == ".png")
    if single and len(paths) > 1:
        raise CapscopeError(f"--out {out} holds one image, {len(paths)} are given: name a folder")
    if animated and len(explainers) > 1:
        raise CapscopeError(f"--out {out} shows one explainer, {len(explainers)} are given")
    photographer = Photographer(run_dir, decoding_settings(beam, assignments))
    if word is not None:
        photographer.check_word(word)
    cards, left_out = [], 0
    for path in paths:
        try:
            explained = photographer.explain(path, explainers, head=head)
            caption = explained.captioned.caption
            explained = explained if word is None else explained.only(word)
        except NothingToExplainError as error:
            left_out += 1
            if left_out == len(paths):
                raise
            click.echo(f"left out: {error}", err=True)
            continue
        click.echo(f"{path}: {caption}")
        seen = explained.captioned
        views = [View(**vars(found)) for found in explained.found]
        if page:
            cards.append(card_of(path.name, seen.pixels, seen.words, seen.probabilities, views))
            continue
        title = f"{path.name}: {caption}"
        if len(views) == 1:
            title += f" ({views[0].title})"
        file = out if single and out else (out or Path()) / f"{path.stem}.explained.png"
        if animated:
            save_animation(frames(seen.pixels, seen.words, views[0]), file)
        else:
            save_png(montage(seen.pixels, seen.words, views, title=title), file)
        click.echo(f"  -> {file}")
    if page and out is not None:
        write_page(cards, out)
        click.echo(f"  -> {out}")
