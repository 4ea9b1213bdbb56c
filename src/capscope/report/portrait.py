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

from capscope.report.heatmaps import AREA, OUTLINED, STRENGTH, TINT, WEAK, layer
from capscope.report.views import MIDDLE, PLACES, View

PICTURE = 384
"""Largest width in pixels of an image in the viewer."""
QUALITY, BLOCK = 70, 8
"""Of maps, as JPEG has them: a third of the bytes of best quality, no difference to the eye; and
the side of its blocks, which no word shares with its neighbour."""
MARKS = {"right": "r", "wrong": "w", "hallucinated": "h"}
"""How the list of the gallery notes what is known of a word."""


def about(runs: Sequence[str], explainers: Sequence[str]) -> dict[str, Any]:
    """Return what the images of a page name by number, and how levels are drawn.

    A ramp is what `heatmaps.layer` makes of each level of a map, and of an area of regions.
    """
    steps = (np.arange(256) - MIDDLE) / 127
    signed = np.sign(steps) * np.abs(steps) ** (1 / STRENGTH)
    ramps = {"maps": layer(signed, 1.0), "areas": layer(signed, 1.0, opacity=TINT, power=AREA)}
    return {
        "runs": list(runs),
        "explainers": list(explainers),
        "places": list(PLACES),
        "ramps": {name: _text(ramp.tobytes()) for name, ramp in ramps.items()},
        "outlined": OUTLINED,
        "weak": WEAK,
        "power": STRENGTH,
    }


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
    boxes = next((view.boxes for view in views.values() if view.boxes is not None), None)
    return {
        "run": run,
        "words": list(texts),
        "p": [round(float(p), 3) for p in probabilities[: len(texts)]],
        "verdicts": [known.get(place) for place in range(len(texts))],
        "scores": [list(score) for score in scores],
        "boxes": None if boxes is None else np.asarray(boxes, np.float64).round(3).tolist(),
        "maps": [map_data(view, explainer, len(texts)) for explainer, view in views.items()],
    }


def map_data(view: View, explainer: int, words: int) -> dict[str, Any]:
    """Return what an explainer says of T words: levels of their maps, and the words before.

    Levels of regions and cells are bytes; those of fine maps are a picture, words side by side.
    """
    levels = view.levels()[:words]
    kind = "cells" if view.is_coarse else "fine" if view.regions is None else "regions"
    height, width = levels.shape[1:] if kind != "regions" else (1, levels.shape[1])
    return {
        "e": explainer,
        "kind": kind,
        "h": height,
        "w": width,
        "levels": _text(_jpeg(levels) if kind == "fine" else levels.tobytes()),
        "where": [[place, round(share, 2)] for place, share in view.places()[:words]],
        "before": None
        if view.before is None
        else [[round(float(x), 2) for x in view.influences(word)] for word in range(words)],
    }


def _jpeg(levels: NDArray[np.uint8]) -> bytes:
    """Return maps (T, h, w) as a picture, each on blocks of its own."""
    side = -levels.shape[2] % BLOCK
    padded = np.pad(levels, ((0, 0), (0, 0), (0, side)), constant_values=MIDDLE)
    stream = io.BytesIO()
    row = np.concatenate(list(padded), axis=1)
    Pillow.fromarray(row).save(stream, format="JPEG", quality=QUALITY)
    return stream.getvalue()


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
    return "data:image/webp;base64," + _text(picture(pixels, width))


def call(function: str, *values: Any) -> str:
    """Return the statement of a script that hands JSON values to a function.

    Nothing in it can end the script element that it may stand in.
    """
    texts = [json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values]
    escaped = ",".join(texts).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return f"capscope.{function}({escaped.replace(chr(0x2029), chr(92) + 'u2029')});\n"


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
