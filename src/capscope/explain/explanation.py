"""What every explainer returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from capscope.explain.raster import paint
from capscope.features.visual import Features


@dataclass(frozen=True)
class Explanation:
    """Explanations of the words of B captions, padded to T words.

    Word t is the one that the captioner says after inputs 0..t, where input 0 is the start of the
    caption and input i > 0 is word i - 1.

    Attributes
    ----------
    grid : Tensor (B, T, N)
        Signed relevance of each visual feature for each word, summed over channels.
    words : Tensor (B, T, T) or None
        ``words[b, t, i]`` is the relevance of input i for word t; 0 for i > t.
    pixels : Tensor (B, T, S, S) or None
        Signed relevance of each pixel for each word, summed over channels; of `painted`
        explanations that of the regions a pixel lies in.
    conservation : dict of str to Tensor (B, T)
        Where the relevance went: ``start``, the relevance that was handed down (the word's
        logit, or what it gains on a path); what arrived at ``grid`` and ``words``; and of the
        grid's share, what entered the image ``network`` (all but what channels that say where a
        cell is got) and what arrived at ``pixels``.
    boxes : Tensor (B, N, 4) or None
        Where the visual features are, of `painted` explanations: x0, y0, x1, y1 in [0, 1].
    """

    grid: Tensor
    words: Tensor | None = None
    pixels: Tensor | None = None
    conservation: dict[str, Tensor] = field(default_factory=dict)
    boxes: Tensor | None = None

    def as_published(self, accumulate: bool = False) -> Explanation:
        """Return words over their largest relevance; the pixels of a word may be a running sum.

        The published program divides what preceding words get by its largest absolute value and,
        for LRP, never clears the image's gradient between words (Sun et al. 2022).
        """
        words, pixels = self.words, self.pixels
        if words is not None:
            largest = words.abs().amax(-1, keepdim=True)
            words = words / torch.where(largest == 0, 1.0, largest)
        if pixels is not None and accumulate:
            pixels = pixels.cumsum(1)
        return replace(self, words=words, pixels=pixels)

    def painted(self, features: Features, size: int) -> Explanation:
        """Return pixels (B, T, size, size) from boxes, where no network leads on to pixels."""
        if self.pixels is not None or features.boxes is None:
            return self
        pixels = paint(self.grid, features.boxes, size)
        return replace(self, pixels=pixels, boxes=features.boxes)

    def within(self, lengths: Tensor) -> Explanation:
        """Set everything beyond the `lengths` (B,) of the captions to zero."""
        said = torch.arange(self.grid.shape[1]) < lengths.unsqueeze(1)

        def cut(tensor: Tensor) -> Tensor:
            shape = said.shape + (1,) * (tensor.dim() - 2)
            return torch.where(said.reshape(shape), tensor, 0.0)

        return replace(
            self,
            grid=cut(self.grid),
            words=None if self.words is None else cut(self.words),
            pixels=None if self.pixels is None else cut(self.pixels),
            conservation={name: cut(value) for name, value in self.conservation.items()},
        )
