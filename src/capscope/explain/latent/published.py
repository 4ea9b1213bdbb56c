"""The seven LIME variants of Elguendouze et al. 2023, as their program has them.

There is no kernel, no distance and no selection: a ridge regression (alpha 1, with intercept) of
the largest log-probability that a search ever gave a word, over masks in which 1 is *perturbed*.
A feature that matters has a negative coefficient, and the program ranks by descending coefficient,
the least important first: `order_of` turns that round unless it is asked for the original's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.latent import masks as made
from capscope.explain.latent.objects import by_class
from capscope.explain.latent.surrogate import Array, Fit, fit

RIDGE = 1.0
BEAM, STEPS = 3, 20
"""Search under perturbation."""
RankSign = Literal["original", "corrected"]


@dataclass(frozen=True)
class Variant:
    """One published variant.

    Attributes
    ----------
    masks : str
        pairs: nothing, every feature, every pair. drawn: `size` features, `count` times. objects:
        every subset of `size` objects.
    magnitude : {"min", "15"}
        What stands in place: zeros, or Gaussian noise (sigma 1.5) within bounds.
    paper : str or None
        Its name in the paper, as far as known.
    suffix : str
        Of the file that the original program writes for an image.
    """

    masks: Literal["pairs", "drawn", "objects"]
    suffix: str
    size: int = 0
    count: int = 0
    magnitude: Literal["min", "15"] = "min"
    paper: str | None = None


VARIANTS = {
    "lime1": Variant("pairs", "_perturb_0_2_VF_stdmin", paper="BU-LIME-1-2"),
    "lime2": Variant("drawn", "_perturb_5_VF_stdmin", 5, 50, paper="BU-LIME-5"),
    "lime3": Variant("pairs", "_perturb_0_2_VF_std15", magnitude="15"),
    "lime4": Variant("drawn", "_perturb_13_VF_stdmin", 13, 50),
    "lime5": Variant("drawn", "_perturb_13_500_VF_stdmin", 13, 500),
    "lime_5obj": Variant("objects", "_perturb_5_VFobj_stdmin", 5, paper="BU-LIME-5-OBJ"),
    "lime_8obj": Variant("objects", "_perturb_8_VFobj_stdmin", 8, paper="BU-LIME-8-OBJ"),
}


def variant(name: str) -> Variant:
    """Return a variant by its name.

    Raises
    ------
    CapscopeError
        For an unknown name; ``lime`` alone, which the original's instructions write for the two
        variants over objects, is not one of them.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    hint = "; write lime_5obj or lime_8obj for objects" if name == "lime" else ""
    raise CapscopeError(f"unknown variant {name!r}; there are: {', '.join(VARIANTS)}{hint}")


def variant_masks(
    name: str,
    features: int,
    class_ids: Sequence[int] = (),
    seed: int = 0,
    *,
    surest: bool = False,
) -> Tensor | None:
    """Return the masks (n, N) of a variant for one image; None if it has too few objects.

    Parameters
    ----------
    features : int
        N.
    class_ids : sequence of int
        Of each feature, best first; shorter than N where the rest is padding. For objects.
    seed : int
        Of drawn masks. Those of ``lime2`` were published as a file, see `masks.of_lists`.
    surest : bool
        Take the objects that the detector is surest of, in place of those with the lowest class
        ids, as published.
    """
    chosen = variant(name)
    if chosen.masks == "pairs":
        return made.up_to_pairs(features)
    if chosen.masks == "drawn":
        return made.drawn(features, chosen.size, chosen.count, seed)
    groups = by_class(class_ids, features)
    if len(groups) < chosen.size:
        return None
    order = [*dict.fromkeys(one for one in class_ids if one >= 0)] if surest else [*groups]
    return made.subsets(torch.stack([groups[one] for one in order[: chosen.size]]))


def word_target(log_probs: Tensor, word_ids: Sequence[int]) -> Array:
    """Return the target (n,) of an object of one or more words: their mean log-probability."""
    found: Array = log_probs[:, list(word_ids)].double().mean(1).numpy()
    return found


def fit_variant(masks: Tensor, targets: Array) -> Fit:
    """Fit targets (n, M) over masks (n, N) with 1 where a feature is perturbed."""
    return fit(masks.double().numpy(), targets, regression="ridge", alpha=RIDGE)


def order_of(coefficients: Array, sign: RankSign = "corrected") -> NDArray[np.int64]:
    """Return the features from the most to the least important one.

    `sign` original ranks by descending coefficient, as published: the wrong way round.
    """
    if sign == "original":
        order: NDArray[np.int64] = np.argsort(-coefficients)
        return order
    return np.argsort(coefficients, kind="stable")
