"""What one explainer says of one caption, as pictures are drawn from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capscope.report.heatmaps import (
    STRENGTH,
    Bytes,
    Floats,
    limit_of,
    overlay,
    overlay_regions,
)

FINE = 20
"""Maps with at least so many rows are drawn smoothly."""
MIDDLE = 128
"""The level of no relevance; 127 levels below are against the word, 127 above for it."""
PLACES = (
    *("at the upper left", "at the top", "at the upper right"),
    *("at the left", "in the middle", "at the right"),
    *("at the lower left", "at the bottom", "at the lower right"),
)
"""The nine parts of an image, row by row."""


@dataclass(frozen=True)
class View:
    """One explainer's relevance for the T words of a caption.

    Attributes
    ----------
    title : str
        What the explainer is called.
    maps : float (T, h, w)
        Signed relevance of the image.
    before : float (T, at least T - 1) or None
        Relevance of word i (column) for word t (row); read for i < t.
    regions : float (T, N) or None
        Signed relevance of regions, where the captioner sees regions; drawn in place of `maps`.
    boxes : float (N, 4) or None
        Where the regions are: x0, y0, x1, y1 in [0, 1].
    cells : float (T, h, w) or None
        Signed relevance of the cells of a grid, where `maps` are no more than these, enlarged.
    """

    title: str
    maps: Floats
    before: Floats | None = None
    regions: Floats | None = None
    boxes: Floats | None = None
    cells: Floats | None = None

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.maps)

    def panel(self, image: Bytes, word: int, limit: float | None = None) -> Bytes:
        """Return the relevance for a word over its image (H, W, 3); `limit` gets full colour."""
        if self.regions is not None and self.boxes is not None:
            return overlay_regions(image, self.regions[word], self.boxes, limit=limit)
        return overlay(image, self.maps[word], limit=limit)

    @property
    def is_coarse(self) -> bool:
        """Whether the maps are those of cells, each to be seen as such."""
        return self.regions is None and self.shown.shape[1] < FINE

    @property
    def shown(self) -> Floats:
        """The maps that are drawn: of cells, where there is no more."""
        return self.maps if self.cells is None else self.cells

    def levels(self) -> Bytes:
        """Return what a browser draws, in bytes: regions (T, N), or maps (T, h, w).

        A byte tells as much of what the relevance hides as any other: levels are as fine as needed
        where it is weak.
        """
        if self.regions is not None:
            found, quantile = np.asarray(self.regions, dtype=np.float64), 1.0
        else:
            found, quantile = np.asarray(self.shown, dtype=np.float64), 0.995
        limits = np.array([limit_of(word, quantile) for word in found])
        signed = np.clip(found / limits.reshape(-1, *[1] * (found.ndim - 1)), -1, 1)
        steps = np.rint(127 * np.sign(signed) * np.abs(signed) ** STRENGTH)
        levels: Bytes = (MIDDLE + steps).astype(np.uint8)
        return levels

    def places(self) -> list[tuple[int, float]]:
        """Return for each word in which of `PLACES` most of its relevance is, and what share."""
        positive = np.clip(np.asarray(self.shown, dtype=np.float64), 0, None)
        thirds = [
            block.sum(axis=(1, 2))
            for band in np.array_split(positive, 3, axis=1)
            for block in np.array_split(band, 3, axis=2)
        ]
        sums = np.stack(thirds, axis=1).reshape(len(self), len(PLACES))
        strongest = sums.argmax(axis=1)
        shares = sums.max(axis=1) / (sums.sum(axis=1) + (sums.sum(axis=1) == 0))
        return [(int(k), float(share)) for k, share in zip(strongest, shares, strict=True)]

    def influences(self, word: int) -> Floats:
        """Return the relevance of the words before a word, the strongest being 1 or -1."""
        if self.before is None:
            return np.zeros(0)
        signed = np.asarray(self.before[word][:word], dtype=np.float64)
        largest = float(np.abs(signed).max(initial=0))
        return signed / (largest or 1.0)

    def limit(self) -> float:
        """Return the strength of full colour if all words share one scale."""
        return limit_of(self.maps if self.regions is None else self.regions)
