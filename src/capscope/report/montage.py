"""A caption as a figure: words across, explainers down.

Each panel shows what a word owes to the image. Where an explainer says what the word owes to
preceding words, the caption up to it stands below, those words shaded: red for and blue against.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image as Pillow

from capscope.errors import CapscopeError
from capscope.files import atomic_path
from capscope.report.heatmaps import DIVERGING, Bytes, Floats
from capscope.report.views import View

FONT = "DejaVu Sans"
PANEL, SMALL_PANEL = 2.1, 1.6  # inches, the gap included: of one explainer, of several
GAP, LINE, HEADING, LABEL = 0.1, 0.175, 0.3, 0.28
WIDEST, WIDEST_OF_SEVERAL = 7, 10  # panels in a row
WORD_SIZE = 7  # points
INK, PALE = "#1a1a1a", "#8a8a8a"
BOLD: dict[str, Any] = {"weight": "bold"}
SIDEWAYS: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center"}


def montage(
    image: Bytes,
    words: Sequence[str],
    views: Sequence[View],
    *,
    title: str | None = None,
    dots_per_inch: int = 160,
) -> Pillow.Image:
    """Draw the image and, for each explainer, one panel for each word of the caption.

    Parameters
    ----------
    image : uint8 (H, W, 3)
        The picture.
    words : sequence of str, length T
        The caption; a long one is broken into several blocks.
    views : sequence of View
        One for each explainer, from top to bottom.
    title : str, optional
        A line over the figure, such as the image's file name.
    dots_per_inch : int
        Resolution.

    Returns
    -------
    PIL.Image.Image
        The figure, RGB.
    """
    for view in views:
        if len(view) != len(words):
            raise CapscopeError(
                f"a caption of {len(words)} words needs {len(words)} maps of {view.title}, "
                f"got {len(view)}"
            )
    layout = _Layout(image, words, views)
    sheet = _Sheet(layout.size(bool(title)), dots_per_inch)
    if title:
        sheet.write(1.5 * GAP, sheet.size[1] - 0.22, title, size=10, va="center")
    upper = sheet.size[1] - (0.4 if title else 0.1)
    for chosen in layout.blocks:
        first = chosen[0]
        upper -= HEADING
        for panel in chosen:
            name, style = ("image", {"colour": PALE}) if panel == 0 else (words[panel - 1], BOLD)
            shown = name if len(name) <= layout.letters else name[: layout.letters - 1] + "…"
            sheet.write(layout.left(panel - first), upper + 0.07, shown, size=10, **style)
        for view in views:
            lower = upper - layout.height
            if len(views) > 1:
                centre = lower + layout.height / 2
                sheet.write(1.5 * GAP + LABEL / 3, centre, view.title, size=9, **SIDEWAYS)
            for panel in chosen:
                left = layout.left(panel - first)
                if panel:
                    axes = sheet.axes(left, lower, layout.width, layout.height)
                    axes.imshow(view.panel(image, panel - 1), interpolation="lanczos")
                    if view.before is not None:
                        influences = view.influences(panel - 1)
                        layout.context.draw(sheet, left, lower - 0.15, panel - 1, influences)
                elif view is views[0]:
                    axes = sheet.axes(left, lower, layout.width, layout.height)
                    axes.imshow(image, interpolation="lanczos")
            upper = lower - layout.below(view, chosen)
    sheet.legend(1.5 * GAP)
    return sheet.picture()


def save_png(picture: Pillow.Image, path: Path) -> None:
    """Write a picture as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


class _Layout:
    """Where panels go, in inches."""

    def __init__(self, image: Bytes, words: Sequence[str], views: Sequence[View]) -> None:
        several = len(views) > 1
        self.panel = SMALL_PANEL if several else PANEL
        self.views = views
        count = len(words) + 1
        blocks = -(-count // (WIDEST_OF_SEVERAL if several else WIDEST))
        self.across = -(-count // blocks)
        self.blocks = [
            range(first, min(first + self.across, count)) for first in range(0, count, self.across)
        ]
        self.margin = 1.5 * GAP + (LABEL if several else 0)
        self.width = self.panel - GAP
        self.height = self.width * image.shape[0] / image.shape[1]
        self.letters = round(9.5 * self.panel)
        self.context = _Context(words, self.width)

    def left(self, column: int) -> float:
        """Return the left edge of a column."""
        return self.margin + column * self.panel

    def below(self, view: View, panels: range) -> float:
        """Return the room under a row of panels, of which number 0 is the image."""
        lines = self.context.lines(panels[-1])
        return 0.1 if view.before is None else 0.17 + LINE * lines

    def size(self, title: bool) -> tuple[float, float]:
        """Return width and height of the figure."""
        up = (0.4 if title else 0.1) + 0.36
        for panels in self.blocks:
            up += HEADING + sum(self.height + self.below(view, panels) for view in self.views)
        return self.margin + self.across * self.panel + 0.5 * GAP, up


class _Sheet:
    """A figure measured in inches from its lower left corner."""

    def __init__(self, size: tuple[float, float], dots_per_inch: int) -> None:
        self.size = size
        self.figure = Figure(figsize=size, dpi=dots_per_inch, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, lower: float, width: float, height: float) -> Axes:
        across, up = self.size
        axes = self.figure.add_axes((left / across, lower / up, width / across, height / up))
        axes.set_axis_off()
        return axes

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
        axes = self.axes(left + 0.56, 0.13, 1.3, 0.1)
        axes.set_axis_on()
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(-1, 1), DIVERGING),
            cax=axes,
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

    def lines(self, words: int) -> int:
        """Return how many lines the first `words` words take."""
        return self.places[words - 1][1] + 1 if words else 0

    def draw(self, sheet: _Sheet, left: float, upper: float, word: int, signed: Floats) -> None:
        """Write the words up to `word`, the preceding ones on the colour of their influence."""
        for index, (x, line) in enumerate(self.places[: word + 1]):
            influence = float(signed[index]) if index < word else 0.0
            text = sheet.write(
                left + 0.02 + x,
                upper - line * LINE,
                self.words[index],
                size=WORD_SIZE,
                colour="white" if abs(influence) > 0.6 else INK,
                weight="bold" if index == word else "normal",
                va="center",
            )
            if index < word:
                shade = (*DIVERGING(influence / 2 + 0.5)[:3], min(1.0, 1.2 * abs(influence)))
                text.set_bbox({"boxstyle": "round,pad=0.18", "facecolor": shade, "linewidth": 0})
