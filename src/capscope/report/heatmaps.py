"""Relevance as colour: signed maps, and maps laid over their image.

Red speaks for the word, blue against it, and nothing is drawn where there is no relevance. Scales
are symmetric about 0, so equal strength has equal colour on both sides. The functions whose
docstring says "published" reproduce the pictures of Sun et al. 2022 number by number.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from capscope.errors import CapscopeError
from capscope.relevance.image_upscale import expansion_matrix

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]

DIVERGING = LinearSegmentedColormap.from_list(
    "relevance",
    ["#053061", "#1f5fa8", "#5aa2d6", "#f7f7f7", "#f28a5c", "#d62a1f", "#7f0016"],
)

STRENGTH, AREA, TINT = 0.6, 0.8, 0.5
"""Powers of the strength in what maps and areas of regions hide; of areas, the most."""
FADE = 0.9
"""How far an image goes towards a light grey below a layer."""
OUTLINED, WEAK = 8, 0.2
"""So many regions are outlined, if they have at least this share of the strongest relevance."""


def limit_of(relevance: Floats, quantile: float = 0.995) -> float:
    """Return the strength that gets the full colour: a quantile of |relevance|, never 0.

    A quantile instead of the maximum keeps a single pixel from bleaching the map.
    """
    strength = np.abs(np.asarray(relevance, dtype=np.float64)).ravel()
    if not strength.size or not np.isfinite(strength).all():
        raise CapscopeError("a heat map needs finite numbers; this relevance has none or others")
    limit = float(np.quantile(strength, quantile)) or float(strength.max())
    return limit or 1.0


def enlarge(relevance: Floats, height: int, width: int) -> NDArray[np.float64]:
    """Enlarge or shrink a map (h, w) to the size of its image.

    Whole factors are enlarged smoothly (`pyramid_expand`); other sizes are interpolated linearly.
    """
    matrices = []
    for size, wanted in zip(relevance.shape, (height, width), strict=True):
        if wanted % size == 0:
            matrices.append(expansion_matrix(size, wanted // size, None if wanted > size else 0))
        else:
            matrices.append(_linear(size, wanted))
    rows, columns = matrices
    return np.asarray(rows @ np.asarray(relevance, dtype=np.float64) @ columns.T)


def overlay(image: Bytes, relevance: Floats, *, limit: float | None = None) -> Bytes:
    """Lay signed relevance over an image.

    The image loses nine tenths of its colour, so that red and blue belong to the relevance alone;
    the map covers it in proportion to its strength.

    Parameters
    ----------
    image : uint8 (H, W, 3)
        The picture.
    relevance : float (h, w)
        Signed relevance; another size than the image's is enlarged.
    limit : float, optional
        Strength of the full colour; `limit_of` this map if not given. Give the same number to
        compare words with each other.

    Returns
    -------
    uint8 (H, W, 3)
    """
    if image.ndim != 3 or image.shape[2] != 3 or relevance.ndim != 2:
        raise CapscopeError(
            f"an overlay needs an image (H, W, 3) and relevance (h, w), got {image.shape} "
            f"and {relevance.shape}"
        )
    if limit is None:
        limit = limit_of(relevance)
    covering = layer(enlarge(relevance, *image.shape[:2]), limit)
    return _laid_over(image, covering)


def layer(
    relevance: Floats, limit: float, *, opacity: float = 0.85, power: float = STRENGTH
) -> Bytes:
    """Return signed relevance (...) as a layer (..., 4) to lay over a faded image.

    The last channel is how much of the image it hides: more, the stronger the relevance; `limit`
    gets full colour, and the share `opacity`.
    """
    signed = np.clip(relevance / limit, -1, 1)
    share = 255 * opacity * np.abs(signed)[..., None] ** power
    return _to_bytes(np.concatenate([_vivid(signed), share], axis=-1))


def overlay_regions(
    image: Bytes,
    relevance: Floats,
    boxes: Floats,
    *,
    limit: float | None = None,
) -> Bytes:
    """Draw regions over an image: outlines in the colour of their relevance, areas tinted.

    Outlines are as strong as the relevance, the strongest on top; only the most relevant have one.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    relevance : float (N,)
        Signed relevance of each region.
    boxes : float (N, 4)
        x0, y0, x1, y1 in [0, 1]; empty ones (padding) are not drawn.
    limit : float, optional
        Strength of the full colour; the largest of these regions' if not given.

    Returns
    -------
    uint8 (H, W, 3)
    """
    limit = limit or limit_of(relevance, 1.0)
    return _laid_over(image, layer_regions(relevance, boxes, limit, *image.shape[:2]))


def layer_regions(relevance: Floats, boxes: Floats, limit: float, height: int, width: int) -> Bytes:
    """Return regions as a layer (height, width, 4) to lay over a faded image, as `layer` does.

    Areas are tinted, and the most relevant regions outlined, the strongest on top.
    """
    signed = np.clip(np.asarray(relevance, dtype=np.float64) / limit, -1, 1)
    corners = np.round(boxes * [width, height, width, height]).astype(int)
    area: Floats = np.zeros((height, width))
    for (x0, y0, x1, y1), strength in zip(corners, signed, strict=True):
        area[y0:y1, x0:x1] += strength
    area /= max(1.0, float(np.abs(area).max()))
    picture = Pillow.fromarray(layer(area, 1.0, opacity=TINT, power=AREA))
    pencil = ImageDraw.Draw(picture)
    # Regions of an object have equal relevance: those that the detector is surest of are drawn.
    strongest = np.argsort(-np.abs(signed).round(3), kind="stable")[:OUTLINED]
    for region in strongest[::-1]:
        x0, y0, x1, y1 = corners[region].tolist()
        strength = abs(signed[region])
        if strength >= WEAK and x1 > x0 and y1 > y0:
            colour = (*_to_bytes(_vivid(signed[region])).tolist(), 255)
            thick = max(1, round(strength * min(height, width) / 55))
            pencil.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=thick)
    return np.asarray(picture)


def correct_gamma(maps: Floats) -> Floats:
    """Return sign(x) |x / m|^0.7 m, with m the largest |x| of all maps (published)."""
    largest = np.abs(maps).max() or 1.0
    return np.asarray(np.sign(maps) * np.abs(maps / largest) ** 0.7 * largest)


def project(maps: Floats) -> Floats:
    """Return the channel sum of maps (..., C), scaled so that 0 lies at 127.5 of 255 (published).

    The largest |sum| of all maps lies at 0 or 255.
    """
    total = maps.sum(-1)
    largest = np.abs(total).max() or 1.0
    return np.asarray(255 * (total / largest + 1) / 2)


def published_heatmap(maps: Floats) -> Floats:
    """Return the "seismic" colours (..., 3), 0..1, of gamma-corrected maps (..., C) (published)."""
    levels = project(correct_gamma(maps)).astype(int)
    return np.asarray(colormaps["seismic"](levels)[..., :3])


def published_attention(image: Bytes, attention: Floats) -> Bytes:
    """Lay attention (h, w) over an image (H, W, 3), H a multiple of h (published).

    The attention over its largest value, enlarged and blurred, indexes "seismic" without a shift,
    so weak attention is blue.
    """
    rows, columns = (
        expansion_matrix(size, wanted // size, 20.0)
        for size, wanted in zip(attention.shape, image.shape[:2], strict=True)
    )
    strength = rows @ (attention / np.abs(attention).max()) @ columns.T
    return _to_bytes(0.6 * 255 * colormaps["seismic"](strength)[..., :3] + 0.4 * image)


def published_blend(image: Bytes, attention: Floats, band: int = 25) -> Floats:
    """Blend an image (H, W, 3) with attention (h, w), half of each, below a black band (published).

    Attention is enlarged by repeating its nearest value and not rescaled; the result, 0..1, has its
    channels in reverse order. The band is for the word. Source: the recurrent captioners' program,
    for images that are squares; it confuses the sides of others.
    """
    (height, width), (rows, columns) = image.shape[:2], attention.shape
    nearest = attention[np.arange(height) * rows // height][:, np.arange(width) * columns // width]
    blended = 0.5 * nearest.astype(np.float64)[..., None] + 0.5 * image / 255
    return np.concatenate([np.zeros((band, width, 3)), blended])[..., ::-1]


def _laid_over(image: Bytes, covering: Bytes) -> Bytes:
    """Return a layer (H, W, 4) over a faded image (H, W, 3)."""
    share = covering[..., 3:] / 255
    return _to_bytes((1 - share) * _faded(image) + share * covering[..., :3])


def _faded(image: Bytes) -> Floats:
    """Return the image (H, W, 3) with most of its colour gone, towards a light grey."""
    grey = image @ np.array([0.299, 0.587, 0.114])
    return np.asarray((1 - FADE) * image + FADE * (60 + 0.72 * grey)[..., None])


def _vivid(signed: Floats) -> Floats:
    """Return the colours (..., 3), 0..255, of values in [-1, 1]; but for 0, none is near white."""
    position = np.sign(signed) * (0.25 + 0.75 * np.abs(signed)) / 2 + 0.5
    return np.asarray(255 * np.asarray(DIVERGING(position))[..., :3])


def _linear(size: int, wanted: int) -> NDArray[np.float64]:
    """Return the matrix that interpolates an axis linearly at half-pixel centres."""
    centres = ((np.arange(wanted) + 0.5) * size / wanted - 0.5).clip(0, size - 1)
    return np.asarray(np.maximum(0.0, 1 - np.abs(centres[:, None] - np.arange(size))))


def _to_bytes(values: Floats) -> Bytes:
    return np.clip(values, 0, 255).astype(np.uint8)
