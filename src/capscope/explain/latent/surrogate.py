"""Linear models of what a captioner says over which parts of an image it sees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capscope.errors import CapscopeError

Array = NDArray[np.float64]
KERNELS = ("none", "exponential", "cosine")
REGRESSIONS = ("ridge", "lasso")
SELECTIONS = ("none", "largest", "forward")


class Fit(NamedTuple):
    """A linear model of each of M targets."""

    coefficients: Array
    """(M, N)"""
    intercepts: Array
    """(M,)"""
    r2: Array
    """(M,) weighted share of the variance that it explains; nan of a constant target."""


def kernel_weights(kept: Array, kernel: str, width: float) -> Array:
    """Return how much each perturbation (n, N), 1 kept, counts: near the whole image, more.

    The distance to the whole image is d = 1 - cosine = 1 - sqrt(share kept). exponential:
    sqrt(exp(-d^2 / width^2)) as in LIME (Ribeiro et al. 2016); cosine: 1 - d; none: 1.
    """
    distance = 1 - np.sqrt(kept.mean(1))
    if kernel == "exponential":
        weights: Array = np.sqrt(np.exp(-(distance**2) / width**2))
        return weights
    if kernel == "cosine":
        closeness: Array = 1 - distance
        return closeness
    if kernel != "none":
        raise CapscopeError(f"unknown kernel {kernel!r}; there are: {', '.join(KERNELS)}")
    return np.ones(len(kept), np.float64)


def fit(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    regression: str = "ridge",
    alpha: float = 1.0,
    selection: str = "none",
    selected: int | None = None,
) -> Fit:
    """Fit y (n, M) over x (n, N) with an intercept that is not penalised.

    ridge: sum w (y - x b)^2 + alpha |b|^2, in closed form for all targets together. lasso:
    sum w (y - x b)^2 / (2 sum w) + alpha |b|_1, by coordinate descent.

    Parameters
    ----------
    selection : str
        none; largest: the `selected` features with the largest coefficients of a fit to all;
        forward: one feature after the other, the one that explains most with those before it.
        The model is then fitted to these alone, the others are 0.

    Raises
    ------
    CapscopeError
        For an unknown regression or selection.
    """
    if regression not in REGRESSIONS:
        raise CapscopeError(f"unknown regression {regression!r}: {', '.join(REGRESSIONS)}")
    if selection not in SELECTIONS:
        raise CapscopeError(f"unknown selection {selection!r}: {', '.join(SELECTIONS)}")
    if weights is None:
        weights = np.ones(len(x), np.float64)
    total = float(weights.sum())
    centre, middle = weights @ x / total, weights @ y / total
    x, y = x - centre, y - middle
    gram, moments = (x.T * weights) @ x, (x.T * weights) @ y
    everything = np.arange(x.shape[1])
    coefficients: Array
    if selection == "none" or selected is None or selected >= len(everything):
        coefficients = _solve(gram, moments, regression, alpha, total)
    else:
        coefficients = np.zeros_like(moments)
        whole = _solve(gram, moments, regression, alpha, total)
        for target in range(y.shape[1]):
            if selection == "largest":
                chosen = np.argsort(-np.abs(whole[:, target]), kind="stable")[:selected]
            else:
                chosen = _forward(gram, moments[:, target], alpha, selected)
            chosen = np.sort(chosen)
            part = gram[np.ix_(chosen, chosen)], moments[chosen, target : target + 1]
            coefficients[chosen, target : target + 1] = _solve(*part, regression, alpha, total)
    spread = weights @ y**2
    left = weights @ (y - x @ coefficients) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - left / spread, np.nan)
    return Fit(coefficients.T, middle - centre @ coefficients, r2)


def _solve(gram: Array, moments: Array, regression: str, alpha: float, total: float) -> Array:
    if regression == "ridge":
        return np.asarray(np.linalg.solve(gram + alpha * np.eye(len(gram)), moments), np.float64)
    return np.stack([_lasso(gram / total, one / total, alpha) for one in moments.T], 1)


def _lasso(gram: Array, moment: Array, alpha: float, tolerance: float = 1e-10) -> Array:
    """Minimise b G b / 2 - m b + alpha |b|_1, one coordinate after the other."""
    found = np.zeros_like(moment)
    rest = moment.copy()  # moment - gram @ found
    for _ in range(10_000):
        largest = 0.0
        for j, diagonal in enumerate(np.diag(gram)):
            if diagonal <= 0:
                continue
            pulled = rest[j] + diagonal * found[j]
            value = np.sign(pulled) * max(abs(pulled) - alpha, 0.0) / diagonal
            change = value - found[j]
            if change:
                rest -= gram[:, j] * change
                found[j] = value
                largest = max(largest, abs(change))
        if largest <= tolerance * max(1e-300, float(np.abs(found).max())):
            break
    return found


def _forward(gram: Array, moment: Array, alpha: float, count: int) -> NDArray[np.int64]:
    """Choose features one after the other, each the best beside those before, by ridge."""
    chosen: list[int] = []
    for _ in range(count):
        gains = np.full(len(gram), -np.inf)
        for feature in range(len(gram)):
            if feature not in chosen:
                tried = [*chosen, feature]
                part = gram[np.ix_(tried, tried)] + alpha * np.eye(len(tried))
                coefficients = np.linalg.solve(part, moment[tried])
                gains[feature] = moment[tried] @ coefficients
        chosen.append(int(gains.argmax()))
    return np.array(chosen)
