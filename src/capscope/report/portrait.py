"""Explained captions as the viewer of the pages reads them: words, layers, preceding words."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from capscope.report.views import View

PICTURE = 384
"""Largest width in pixels of an image in the viewer."""
QUALITY, ALPHA_QUALITY = 50, 15
"""Of layers, as WebP has them: a quarter of the bytes of best quality, no difference to the eye."""
MARKS = {"right": "r", "wrong": "w", "hallucinated": "h"}
"""How the list of the gallery notes what is known of a word."""


def caption_data(
    texts: Sequence[str],
    probabilities: NDArray[np.float64],
    views: Mapping[int, View],
    *,
    run: int = 0,
    verdicts: Mapping[int, str] | None = None,
    scores: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Return one caption of T words and what the explainers say of it.

    Parameters
    ----------
    texts : sequence of str
        The T words.
    probabilities : float (at least T,)
    views : mapping
        Number of the explainer to its view.
    run : int
        Number of the run.
    verdicts : mapping, optional
        Position of a word to right, wrong or hallucinated; nothing of words that nobody can judge.
    scores : sequence of (metric, text)
    """
    known = verdicts or {}
    return {
        "run": run,
        "words": list(texts),
        "p": [round(float(p), 3) for p in probabilities[: len(texts)]],
        "verdicts": [known.get(place) for place in range(len(texts))],
        "scores": [list(score) for score in scores],
        "maps": [map_data(view, explainer, len(texts)) for explainer, view in views.items()],
    }


def map_data(view: View, explainer: int, words: int) -> dict[str, Any]:
    """Return an explainer's layers of T words side by side, and what it says of preceding words."""
    height, width = view.tile
    places = [view.place(word) for word in range(words)]
    return {
        "e": explainer,
        "h": height,
        "w": width,
        "cells": view.is_coarse,
        "layers": layers_url(view, words),
        "where": [[place, round(share, 2)] for place, share in places],
        "before": None
        if view.before is None
        else [[round(float(x), 2) for x in view.influences(word)] for word in range(words)],
    }


def layers_url(view: View, words: int) -> str:
    """Return the layers (h, T w, 4) of all words in a row, as the data URL of a WebP image."""
    row = np.concatenate([view.layer(word) for word in range(words)], axis=1)
    lossless = view.is_coarse
    stream = io.BytesIO()
    Pillow.fromarray(row).save(
        stream,
        format="WEBP",
        lossless=lossless,
        quality=QUALITY,
        alpha_quality=ALPHA_QUALITY,
        method=0,
        exact=lossless,
    )
    return _data_url(stream.getvalue())


def picture(pixels: NDArray[np.uint8], width: int) -> bytes:
    """Return an image (H, W, 3), no wider than `width`, as WebP."""
    image = Pillow.fromarray(pixels)
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Pillow.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="WEBP", quality=85, method=4)
    return stream.getvalue()


def picture_url(pixels: NDArray[np.uint8], width: int) -> str:
    """Return an image, no wider than `width`, as a data URL."""
    return _data_url(picture(pixels, width))


def call(function: str, *values: Any) -> str:
    """Return the statement of a script that hands JSON values to a function.

    Nothing in it can end the script element that it may stand in.
    """
    texts = [json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values]
    escaped = ",".join(texts).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return f"capscope.{function}({escaped.replace(chr(0x2029), chr(92) + 'u2029')});\n"


def _data_url(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")
