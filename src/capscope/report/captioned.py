"""Images with what was said of them written below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from capscope.files import atomic_path

WIDEST, NARROWEST = 640, 240
"""Bounds of the width in pixels: larger images shrink, smaller ones get a margin."""
SIZE, LEADING, MARGIN = 18, 1.35, 10
INK, PAPER = (28, 39, 51), (255, 255, 255)


def captioned(image: Pillow.Image, captions: Sequence[str]) -> Pillow.Image:
    """Return an image with captions below it, each beginning a line, long ones broken."""
    picture = image.convert("RGB")
    picture.thumbnail((WIDEST, 4 * WIDEST))
    width = max(picture.width, NARROWEST)
    font = ImageFont.load_default(SIZE)
    room = width - 2 * MARGIN
    lines = [line for caption in captions for line in _broken(caption, font, room)]
    line_height = round(SIZE * LEADING)
    sheet = Pillow.new(
        "RGB", (width, picture.height + 2 * MARGIN + line_height * len(lines)), PAPER
    )
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        place = (MARGIN, picture.height + MARGIN + number * line_height)
        draw.text(place, line, fill=INK, font=font)
    return sheet


def save_captioned(image: Pillow.Image, captions: Sequence[str], path: Path) -> None:
    """Write an image with captions below it as JPEG, whole or not at all."""
    with atomic_path(path) as temporary:
        captioned(image, captions).save(temporary, format="JPEG", quality=90)


def _broken(
    caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int
) -> Iterator[str]:
    """Break a caption into lines that are no wider than `room`, if its words are not."""
    line = ""
    for word in caption.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > room:
            yield line
            line = word
        else:
            line = longer
    yield line
