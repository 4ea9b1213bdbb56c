"""Which visual features of an image are perturbed together: masks (n, N) bool, True perturbed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from capscope.errors import CapscopeError

MOST = 20_000
"""Masks of one image at most, where their number follows from that of the features."""


def up_to_pairs(features: int) -> Tensor:
    """Return nothing, every feature alone and every pair: (1 + N + N (N - 1) / 2, N)."""
    count = 1 + features + features * (features - 1) // 2
    if count > MOST:
        raise CapscopeError(
            f"all pairs of {features} visual features are {count} perturbations of an image, more "
            f"than {MOST}: draw masks (explainer lime) in place of lime1 and lime3"
        )
    found = torch.zeros(count, features, dtype=torch.bool)
    found[torch.arange(1, features + 1), torch.arange(features)] = True
    pairs = torch.combinations(torch.arange(features))
    found[features + 1 :].scatter_(1, pairs, True)
    return found


def of_lists(lists: Sequence[Sequence[int]], features: int) -> Tensor:
    """Return the masks of given lists of feature indices."""
    found = torch.zeros(len(lists), features, dtype=torch.bool)
    for row, chosen in zip(found, lists, strict=True):
        for index in chosen:
            if not 0 <= index < features:
                raise CapscopeError(
                    f"a mask names feature {index}, an image has {features} of them (from 0 on)"
                )
            row[index] = True
    return found


def drawn(features: int, size: int, count: int, seed: int) -> Tensor:
    """Return `count` masks of `size` different features each, drawn with `seed`."""
    if not 1 <= size <= features:
        raise CapscopeError(
            f"{size} of an image's {features} visual features cannot be perturbed together: "
            f"choose a number from 1 to {features}"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, features, generator=generator).argsort(1)
    return torch.zeros(count, features, dtype=torch.bool).scatter_(1, order[:, :size], True)


def of_any_size(parts: int, count: int, seed: int) -> Tensor:
    """Return masks for LIME: nothing first, then 1 to `parts` parts, every number as likely.

    Where all subsets are no more than `count`, they are returned, by size; no mask is drawn.

    Source: M. T. Ribeiro et al., "Why should I trust you?", KDD 2016, section 3.3.
    """
    if parts < 31 and 2**parts <= count:
        return torch.stack([row for size in range(parts + 1) for row in _subsets(parts, size)])
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, parts + 1, (count - 1, 1), generator=generator)
    ranks = torch.rand(count - 1, parts, generator=generator).argsort(1).argsort(1)
    return torch.cat([torch.zeros(1, parts, dtype=torch.bool), ranks < sizes])


def subsets(groups: Tensor) -> Tensor:
    """Return the union of every subset of groups (K, N) bool, by size and lexicographic: (2^K, N).

    The first is empty.
    """
    if 2 ** len(groups) > MOST:
        raise CapscopeError(f"{len(groups)} objects have more than {MOST} subsets: take fewer")
    chosen = [row for size in range(len(groups) + 1) for row in _subsets(len(groups), size)]
    return spread(torch.stack(chosen), groups)


def spread(chosen: Tensor, groups: Tensor) -> Tensor:
    """Return which features (n, N) are perturbed with groups (K, N) that are `chosen` (n, K)."""
    return (chosen.float() @ groups.float()) > 0


def _subsets(parts: int, size: int) -> list[Tensor]:
    found = []
    for indices in combinations(range(parts), size):
        row = torch.zeros(parts, dtype=torch.bool)
        row[list(indices)] = True
        found.append(row)
    return found
