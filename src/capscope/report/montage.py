"""A caption as a figure: one panel a word, with what the word owes to image and preceding words.

Below each panel stands the caption up to that word; preceding words are shaded by their relevance
for it, red for and blue against.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image as Pillow

from capscope.errors import CapscopeError
from capscope.files import atomic_path
from capscope.report.heatmaps import DIVERGING, Bytes, Floats, limit_of, overlay

FONT = "DejaVu Sans"
PANEL, GAP, LINE = 2.1, 0.1, 0.175  # inches
WIDEST = 7  # panels in a row
WORD_SIZE = 7  # points
INK, PALE = "#1a1a1a", "#8a8a8a"


def montage(
    image: Bytes,
    words: Sequence[str],
    maps: Floats,
    word_relevance: Floats | None = None,
    *,
    title: str | None = None,
    columns: int | None = None,
    common_scale: bool = False,
    dots_per_inch: int = 160,
) -> Pillow.Image:
    """Draw the image and one panel for each word of its caption.

    Parameters
    ----------
    image : uint8 (H, W, 3)
        The picture.
    words : sequence of str, length T
        The caption.
    maps : float (T, h, w)
        Signed relevance of the image for each word.
    word_relevance : float (T, T), optional
        Relevance of word i (column) for word t (row); entries on and above the diagonal are not
        read. Each row is scaled to its largest absolute value.
    title : str, optional
        A line over the figure, such as the image's file name.
    columns : int, optional
        Panels in a row, the image included; chosen by the length of the caption if not given.
    common_scale : bool
        One colour scale for all words, so that strengths compare; otherwise each word has its own.
    dots_per_inch : int
        Resolution.

    Returns
    -------
    PIL.Image.Image
        The figure, RGB.
    """
    count = len(words)
    if len(maps) != count or (word_relevance is not None and len(word_relevance) != count):
        raise CapscopeError(f"a caption of {count} words needs {count} maps, got {len(maps)}")
    rows = -(-(count + 1) // (columns or WIDEST))
    across = columns or -(-(count + 1) // rows)
    width = PANEL - GAP
    height = width * image.shape[0] / image.shape[1]
    context = _Context(words, width) if word_relevance is not None else None
    below = 0.1 if context is None else 0.17 + LINE * context.lines
    top, bottom = (0.4 if title else 0.1), 0.36
    size = (across * PANEL + 2 * GAP, rows * (height + below + 0.3) + top + bottom)
    sheet = _Sheet(size, dots_per_inch)
    limit = limit_of(maps) if common_scale and count else None
    if title:
        sheet.write(1.5 * GAP, size[1] - 0.22, title, size=10, va="center")
    for panel in range(count + 1):
        row, column = divmod(panel, across)
        left = 1.5 * GAP + column * PANEL
        lower = size[1] - top - (row + 1) * (height + 0.3) - row * below
        axes = sheet.axes(left, lower, width, height)
        axes.set_axis_off()
        if panel == 0:
            axes.imshow(image, interpolation="lanczos")
            sheet.write(left, lower + height + 0.07, "image", size=10, colour=PALE)
            continue
        word = panel - 1
        name = words[word] if len(words[word]) <= 20 else words[word][:19] + "…"
        axes.imshow(overlay(image, maps[word], limit=limit), interpolation="lanczos")
        sheet.write(left, lower + height + 0.07, name, size=10, weight="bold")
        if context is not None and word_relevance is not None:
            context.draw(sheet, left, lower - 0.15, word, np.asarray(word_relevance[word][:word]))
    sheet.legend(1.5 * GAP)
    return sheet.picture()


def save_png(picture: Pillow.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


class _Sheet:
    """A figure measured in inches from its lower left corner."""

    def __init__(self, size: tuple[float, float], dots_per_inch: int) -> None:
        self.size = size
        self.figure = Figure(figsize=size, dpi=dots_per_inch, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, lower: float, width: float, height: float) -> Axes:
        across, up = self.size
        return self.figure.add_axes((left / across, lower / up, width / across, height / up))

    def write(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float,
        colour: str = INK,
        weight: str = "normal",
        **options: Any,
    ) -> Text:
        return self.figure.text(
            x / self.size[0],
            y / self.size[1],
            words,
            fontfamily=FONT,
            fontsize=size,
            color=colour,
            fontweight=weight,
            parse_math=False,
            **options,
        )

    def legend(self, left: float) -> None:
        """Draw the colour bar, from against the word to for it."""
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(-1, 1), DIVERGING),
            cax=self.axes(left + 0.56, 0.13, 1.3, 0.1),
            orientation="horizontal",
            ticks=[],
        )
        bar.outline.set_visible(False)
        self.write(left, 0.18, "against", size=8, va="center")
        self.write(left + 1.94, 0.18, "for the word", size=8, va="center")

    def picture(self) -> Pillow.Image:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return Pillow.open(buffer).convert("RGB")


class _Context:
    """The caption, broken into lines of a given width (inches)."""

    def __init__(self, words: Sequence[str], width: float) -> None:
        sheet = _Sheet((1, 1), 100)
        self.words = words
        self.places: list[tuple[float, int]] = []
        x, line = 0.0, 0
        for word in words:
            text = sheet.write(0, 0, word, size=WORD_SIZE, weight="bold")
            length = text.get_window_extent().width / 100
            if x and x + length > width:
                x, line = 0.0, line + 1
            self.places.append((x, line))
            x += length + 0.07
        self.lines = line + 1

    def draw(self, sheet: _Sheet, left: float, upper: float, word: int, relevance: Floats) -> None:
        """Write the words up to `word`, the preceding ones on the colour of their relevance."""
        scale = float(np.abs(relevance).max()) if word else 0.0
        for index, (x, line) in enumerate(self.places[: word + 1]):
            signed = float(relevance[index]) / scale if scale and index < word else 0.0
            text = sheet.write(
                left + 0.02 + x,
                upper - line * LINE,
                self.words[index],
                size=WORD_SIZE,
                colour="white" if abs(signed) > 0.6 else INK,
                weight="bold" if index == word else "normal",
                va="center",
            )
            if index < word:
                shade = (*DIVERGING(signed / 2 + 0.5)[:3], min(1.0, 1.2 * abs(signed)))
                text.set_bbox({"boxstyle": "round,pad=0.18", "facecolor": shade, "linewidth": 0})
