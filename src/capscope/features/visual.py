"""Visual features, as every captioner takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Features(NamedTuple):
    """What a captioner sees of a batch of B images.

    Attributes
    ----------
    cells : Tensor (B, N, D)
        Grid cells in row-major order, or regions.
    boxes : Tensor (B, N, 4) or None
        Geometry of each cell or region: x0, y0, x1, y1 in [0, 1] of width and height.
    valid : Tensor (B, N) bool or None
        False where `cells` is padding; None means that all are valid.
    segments : Tensor (B, M, S) or None
        A second visual flow (segmentation features).
    class_ids : Tensor (B, N) int64 or None
        Class of each region by the detector that gave it; -1 is none.
    """

    cells: Tensor
    boxes: Tensor | None = None
    valid: Tensor | None = None
    segments: Tensor | None = None
    class_ids: Tensor | None = None

    def select(self, rows: Tensor | slice) -> Features:
        """Return the features of some images of the batch."""
        return self._map(lambda field: field[rows])

    def to(self, device: torch.device | str) -> Features:
        """Return the features on `device`."""
        return self._map(lambda field: field.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Features:
        rest = (None if field is None else change(field) for field in self[1:])
        return Features(change(self.cells), *rest)


class FeatureSource(Protocol):
    """What gives the features of images by their ids: a store, or what stands in for one."""

    def rows(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> NDArray[np.int64]:
        """Return where images are; an unknown image is a `CapscopeError`."""
        ...

    def read(self, ids: Sequence[int] | NDArray[Any] | Tensor) -> Features:
        """Return the features of images, in the given order."""
        ...
