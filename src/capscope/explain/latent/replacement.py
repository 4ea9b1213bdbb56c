"""What stands in place of a perturbed visual feature.

A replacement takes features (n, N, P) of n rows and masks (n, N); it returns new features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from capscope.errors import CapscopeError

MAXIMUM = 16.4
"""The published constant for `max`: of COCO, and used for Flickr30K too."""
SIGMA = 1.5
"""The published deviation of the noise (``15`` on the command line)."""
PATIENCE = 10_000
"""Draws for one number before the published rejection gives up; the original never does."""
KINDS = ("zero", "minimum", "maximum", "mean", "noise")


class Replacement(ABC):
    """What stands in place of perturbed features."""

    @abstractmethod
    def __call__(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return features (n, N, P) in which those of `masks` (n, N) are replaced."""


class Constant(Replacement):
    """A number, or what each dimension (P,), or each feature (N, P), has in its place."""

    def __init__(self, value: float | Tensor) -> None:
        self.value = value

    def __call__(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return features in which those of `masks` are the constant."""
        value = torch.as_tensor(self.value, dtype=features.dtype)
        return torch.where(masks.unsqueeze(-1), value, features)


class BoundedNoise(Replacement):
    """Gaussian noise within the bounds of each dimension: a truncated normal around the feature.

    A value that lies beyond its bounds is cut to them first. One draw per number, by the inverse
    of the normal distribution, so that the same seed gives the same noise whatever the bounds.

    Parameters
    ----------
    sigma : float
    low, high : Tensor (P,)
    seed : int
    """

    def __init__(self, sigma: float, low: Tensor, high: Tensor, seed: int) -> None:
        self.sigma, self.low, self.high = sigma, low.double(), high.double()
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return features with noise added to those of `masks`."""
        rows, places = masks.nonzero(as_tuple=True)
        found = features.clone()
        values = features[rows, places].double().clamp(self.low, self.high)
        below, above = (
            torch.special.ndtr((bound - values) / self.sigma) for bound in (self.low, self.high)
        )
        share = torch.rand(values.shape, generator=self._generator, dtype=torch.float64)
        noise = torch.special.ndtri(below + share * (above - below)) * self.sigma
        drawn = (values + noise).clamp(self.low, self.high)
        found[rows, places] = drawn.to(features.dtype)
        return found


class RejectionNoise(Replacement):
    """The published noise, draw by draw: numbers of NumPy's old generator until one fits.

    For each perturbed feature in the given order, for each dimension j: draw n ~ N(0, sigma^2)
    until low[j] <= x + n <= high[j]; where the bounds are equal one draw is thrown away.

    Parameters
    ----------
    sigma : float
    low, high : Tensor (P,)
    state : numpy.random.RandomState
        Runs on from image to image.
    """

    def __init__(
        self, sigma: float, low: Tensor, high: Tensor, state: np.random.RandomState
    ) -> None:
        self.low, self.high = low.float().tolist(), high.float().tolist()
        self._draws = _stream(state, sigma)

    def __call__(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return features with noise; those of a mask in ascending order."""
        return self.in_order(features, [row.nonzero().flatten().tolist() for row in masks])

    def in_order(self, features: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
        """Return features with noise at the `positions` of each row, drawn in their order."""
        found = features.clone()
        for row, chosen in zip(found, positions, strict=True):
            for index in chosen:
                row[index] = torch.tensor(self._noised(row[index].tolist()), dtype=row.dtype)
        return found

    def _noised(self, values: list[float]) -> list[float]:
        found = []
        for dimension, (value, low, high) in enumerate(
            zip(values, self.low, self.high, strict=True)
        ):
            changed = value + next(self._draws)
            if low == high:
                found.append(value)
                continue
            tries = 1
            while not low <= changed <= high:
                changed = value + next(self._draws)
                tries += 1
                if tries > PATIENCE:
                    raise CapscopeError(
                        f"dimension {dimension} of a feature is {value:.4g}, so far outside of its "
                        f"bounds {low:.4g} and {high:.4g} that no noise fits: measure the bounds "
                        "on features of this extractor"
                    )
            found.append(changed)
        return found


def _stream(state: np.random.RandomState, sigma: float) -> Iterator[float]:
    """Yield what single calls of ``state.normal(0, sigma)`` would give, drawn in blocks."""
    while True:
        yield from state.normal(0, sigma, size=4096).tolist()


def bounds_of(features: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value (P,) of each dimension of features (B, N, P)."""
    rows = features.flatten(0, 1) if valid is None else features[valid]
    return rows.min(0).values, rows.max(0).values


def replacement(kind: str, features: Tensor, *, sigma: float, seed: int) -> Replacement:
    """Return a replacement measured on the features (M, P) of one image, padding left out.

    Parameters
    ----------
    kind : str
        One of `KINDS`; minimum, maximum and mean are those of each dimension.
    sigma : float
        Of noise, in standard deviations of all `features`.
    seed : int
        Of noise.
    """
    low, high = features.min(0).values, features.max(0).values
    if kind == "noise":
        return BoundedNoise(sigma * float(features.std(correction=0)) + 1e-12, low, high, seed)
    values: dict[str, float | Tensor] = {
        "zero": 0.0,
        "minimum": low,
        "maximum": high,
        "mean": features.mean(0),
    }
    if kind not in values:
        raise CapscopeError(f"unknown replacement {kind!r}; there are: {', '.join(KINDS)}")
    return Constant(values[kind])
