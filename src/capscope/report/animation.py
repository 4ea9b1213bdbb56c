"""A caption as an animation: one frame a word, what made it laid smoothly over the image.

Of maps that the captioner has over a grid of cells (attention, above all) the cells are enlarged by
bicubic interpolation, so that no cell's edge shows; their sums and the order of their strengths are
the captioner's, the curve in between is not. All words share one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from capscope.errors import CapscopeError
from capscope.files import atomic_path
from capscope.report.heatmaps import Bytes, Floats, limit_of, overlay
from capscope.report.views import View

ANIMATED = {".gif": "GIF", ".apng": "PNG", ".webp": "WEBP"}
"""Endings of animations, and what Pillow calls their format."""
MILLISECONDS = 800
SHORTEST, LONGEST = 320, 640
"""Limits of the longer side of a frame, in pixels."""
INK, PAPER = "#1a1a1a", "#ffffff"


def frames(image: Bytes, words: Sequence[str], view: View) -> list[Pillow.Image]:
    """Draw one frame for each word: the image under its map, the word below it.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    words : sequence of str, length T
    view : View
        What one explainer says of the T words.

    Returns
    -------
    list of PIL.Image.Image
        T frames of one size, RGB.
    """
    if len(view) != len(words):
        raise CapscopeError(
            f"a caption of {len(words)} words needs {len(words)} maps of {view.title}, "
            f"got {len(view)}"
        )
    picture = _sized(image)
    height, width = picture.shape[:2]
    band = max(24, round(width * 0.1))
    font = ImageFont.truetype(_font(), round(band * 0.62))
    limit = limit_of(view.maps if view.cells is None else view.cells, 1.0)
    drawn = []
    for number, word in enumerate(words):
        if view.regions is not None or view.cells is None:
            scale = view.limit() if view.regions is not None else limit
            shown = view.panel(picture, number, scale)
        else:
            shown = overlay(picture, smooth(view.cells[number], height, width), limit=limit)
        frame = Pillow.new("RGB", (width, height + band), PAPER)
        frame.paste(Pillow.fromarray(shown))
        pencil = ImageDraw.Draw(frame)
        pencil.text((width / 2, height + band / 2), word, INK, font=font, anchor="mm")
        drawn.append(frame)
    return drawn


def smooth(cells: Floats, height: int, width: int) -> Floats:
    """Enlarge cells (h, w) to (height, width) by bicubic interpolation, within their range."""
    values = np.asarray(cells, dtype=np.float32)
    picture = Pillow.fromarray(values).resize((width, height), Pillow.Resampling.BICUBIC)
    return np.clip(np.asarray(picture, np.float64), values.min(), values.max())


def save_animation(pictures: Sequence[Pillow.Image], path: Path) -> None:
    """Write frames as an endless GIF, APNG or WebP, by the ending of `path`; whole or not at all.

    Raises
    ------
    CapscopeError
        There is no frame, or the ending is none of `ANIMATED`.
    """
    if path.suffix.lower() not in ANIMATED:
        raise CapscopeError(f"{path} is no animation: end it in {', '.join(ANIMATED)}")
    if not pictures:
        raise CapscopeError("a caption without words has no frame to animate")
    first, *others = pictures
    with atomic_path(path) as temporary:
        first.save(
            temporary,
            format=ANIMATED[path.suffix.lower()],
            save_all=True,
            append_images=others,
            duration=MILLISECONDS,
            loop=0,
        )


def _sized(image: Bytes) -> Bytes:
    """Return the image with its longer side within the limits of a frame."""
    height, width = image.shape[:2]
    longer = max(height, width)
    factor = min(max(longer, SHORTEST), LONGEST) / longer
    if factor == 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Pillow.fromarray(image).resize(size, Pillow.Resampling.BICUBIC))


def _font() -> str:
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf")
