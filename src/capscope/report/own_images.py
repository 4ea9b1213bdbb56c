"""Explained captions of one's own images, as a picture or a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capscope.files import write_text
from capscope.report.gallery import PICTURE, Card, data_url, strip_of
from capscope.report.template import render


def card_of(
    name: str,
    pixels: NDArray[np.uint8],
    words: tuple[str, ...],
    title: str,
    maps: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    before: NDArray[np.float64] | None,
) -> Card:
    """Return the card of one image; parameters as those of `strip_of`."""
    return Card(
        name=name,
        picture=data_url(pixels, PICTURE),
        caption=" ".join(words),
        references=(),
        scores=(),
        strips=(strip_of(title, pixels, words, maps, probabilities, before),),
    )


def write_page(cards: list[Card], path: Path) -> None:
    """Write the cards as one self-contained page."""
    write_text(path, render("own_images.jinja", cards=cards))
