"""Images as the bottom-up detector takes them: blue first, resized by Pillow, less their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from capscope.features.detector.boxes import Size, resized_size

MEAN_BGR = (102.9801, 115.9465, 122.7717)


@dataclass(frozen=True)
class Preparation:
    """How large images become.

    Attributes
    ----------
    short_side, long_side : int
        600 and 1000 as in the training of the published weights; some systems used 800 and 1333.
    """

    short_side: int = 600
    long_side: int = 1000

    def size(self, size: Size) -> Size:
        """Return the size that an image of this size gets."""
        return resized_size(size, self.short_side, self.long_side)

    def resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image in its new size: bilinear, with a wider kernel where it shrinks."""
        height, width = self.size((image.shape[0], image.shape[1]))
        picture = Pillow.fromarray(np.ascontiguousarray(image))
        return np.asarray(picture.resize((width, height), Pillow.Resampling.BILINEAR))

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Return an RGB image (h, w, 3) as blue, green, red less their means: (3, H, W)."""
        pixels = np.ascontiguousarray(self.resized(image)[..., ::-1].transpose(2, 0, 1))
        return torch.from_numpy(pixels).float().sub_(torch.tensor(MEAN_BGR).view(3, 1, 1))
