"""What one explainer says of one caption, as pictures are drawn from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capscope.report.heatmaps import Bytes, Floats, limit_of, overlay, overlay_regions


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
