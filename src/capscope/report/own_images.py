"""Explained captions of one's own images, as a picture or a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capscope.files import write_text
from capscope.report.gallery import PICTURE, Card, data_url, strip_of
from capscope.report.template import render
from capscope.report.views import View


def card_of(
    name: str,
    pixels: NDArray[np.uint8],
    words: tuple[str, ...],
    probabilities: NDArray[np.float64],
    views: Sequence[View],
) -> Card:
    """Return the card of one image (H, W, 3) and its caption, with a strip for each explainer."""
    return Card(
        name=name,
        picture=data_url(pixels, PICTURE),
        caption=" ".join(words),
        references=(),
        scores=(),
        strips=tuple(strip_of(view, pixels, words, probabilities) for view in views),
        open=True,
    )


def write_page(cards: list[Card], path: Path) -> None:
    """Write the cards as one self-contained page."""
    write_text(path, render("own_images.jinja", cards=cards))
