"""Explained captions of one's own images, as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capscope.files import write_text
from capscope.report.portrait import PICTURE, about, call, caption_data, picture_url
from capscope.report.template import render
from capscope.report.views import View


def card_of(
    name: str,
    pixels: NDArray[np.uint8],
    words: tuple[str, ...],
    probabilities: NDArray[np.float64],
    views: Sequence[View],
) -> dict[str, Any]:
    """Return one image (H, W, 3) and its caption for the page, with what each explainer says."""
    return {
        "name": name,
        "picture": picture_url(pixels, PICTURE),
        "references": [],
        "explainers": [view.title for view in views],
        "captions": [caption_data(words, probabilities, dict(enumerate(views)))],
    }


def write_page(cards: list[dict[str, Any]], path: Path) -> None:
    """Write the images, each with the viewer, as one page that needs no other file."""
    titles = list(dict.fromkeys(title for card in cards for title in card["explainers"]))
    statements = [call("about", about(["this run"], titles))]
    for number, card in enumerate(cards):
        for caption in card["captions"]:
            for one in caption["maps"]:
                one["e"] = titles.index(card["explainers"][one["e"]])
        kept = {key: value for key, value in card.items() if key != "explainers"}
        statements.append(call("image", kept | {"id": number}))
    names = [card["name"] for card in cards]
    write_text(path, render("own_images.jinja", names=names, data="".join(statements)))
