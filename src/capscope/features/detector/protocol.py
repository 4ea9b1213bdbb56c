"""What every detector does, whichever network is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from capscope.features.regions import Regions


class Detector(Protocol):
    """Finds regions in images.

    Attributes
    ----------
    most : int
        Regions that an image has at most.
    dim : int
        Numbers of a region's feature.
    details : tuple of str
        Which of `capscope.features.regions.DETAILS` its regions have.
    """

    most: int
    dim: int
    details: tuple[str, ...]

    def detect(
        self, images: Sequence[NDArray[np.uint8]], done: Callable[[int], object] | None = None
    ) -> list[Regions]:
        """Return the regions of RGB images (height, width, 3), one entry an image, in order.

        How the images are grouped does not change what is found in them. `done` is called with
        the number of images after each group.
        """
        ...

    def spec(self) -> dict[str, Any]:
        """Return what identifies the features, as JSON: the attributes of a region store.

        Among them ``network``, ``layer``, ``image_size``, ``weights_sha256``, ``selection``,
        ``class_names`` and ``attribute_names``, as far as they are known.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write ``extractor.json`` and ``extractor.safetensors``, from which it is rebuilt."""
        ...
