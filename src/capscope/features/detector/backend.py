"""What a network must do to serve as a detector, and what it finds before any selection."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capscope.features.detector.boxes import Size

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Scales of the box deltas of the classes, in all these networks."""


class Found(NamedTuple):
    """What a network finds in one image.

    Attributes
    ----------
    boxes : Tensor (R, 4)
        Proposals in pixels of the resized image.
    cells : Tensor (R, D)
        The feature of each proposal.
    class_logits : Tensor (R, C+1)
        The background is the last.
    deltas : Tensor (R, 4C)
        From the proposal to the box of each class.
    attribute_logits : Tensor (R, A+1) or None
        "No attribute" is the last.
    """

    boxes: Tensor
    cells: Tensor
    class_logits: Tensor
    deltas: Tensor
    attribute_logits: Tensor | None

    def cpu(self) -> Found:
        """Return the same on the processor, where the selection is faster."""
        return Found(*(None if part is None else part.cpu() for part in self))  # type: ignore[arg-type]


class Backend(Protocol):
    """A network, a `torch.nn.Module` in evaluation, that proposes boxes and describes them.

    Attributes
    ----------
    dim : int
        Numbers of a region's feature.
    attributes : int
        How many attributes it knows; 0 is none.
    proposals : int
        That it makes for an image, at most.
    precision : {"float32", "bfloat16"}
        Of its convolutions; heads and boxes are float32 in any case.
    """

    dim: int
    attributes: int
    proposals: int
    precision: str

    def bucket(self, size: Size) -> Hashable:
        """Return a key; images of sizes with the same key go through the network together."""
        ...

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Return an RGB image (h, w, 3) as the network takes it: (3, H, W)."""
        ...

    def maps(self, images: Tensor) -> Any:
        """Return the maps of images (B, 3, H, W), for the network's own use."""
        ...

    def propose(self, maps: Any, size: Size) -> list[Tensor]:
        """Return each image's proposals (R, 4) in pixels of the prepared image, best first."""
        ...

    def describe(self, maps: Any, boxes: Sequence[Tensor], size: Size) -> list[Found]:
        """Return what the heads say of each image's boxes."""
        ...


def split_by_image(
    boxes: Sequence[Tensor],
    cells: Tensor,
    class_logits: Tensor,
    deltas: Tensor,
    attribute_logits: Tensor | None,
) -> list[Found]:
    """Deal what the heads say of all images' boxes out to the images."""
    counts = [len(own) for own in boxes]
    parts: list[Sequence[Any]] = [
        [None] * len(counts) if part is None else torch.split(part, counts)
        for part in (cells, class_logits, deltas, attribute_logits)
    ]
    return [Found(*image) for image in zip(boxes, *parts, strict=True)]
