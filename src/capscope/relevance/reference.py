"""Slow twins of the relevance rules, straight from their equations, in matrix form.

They carry relevance R (not multipliers), one vector at a time, and share no code with the engine.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """Return den(z) = z + epsilon sign(z), replaced by epsilon where that is exactly 0."""
    den = z + epsilon * torch.sign(z)
    return torch.where(den == 0, torch.full_like(den, epsilon), den)


def weighted_sum(x: Tensor, weight: Tensor, z: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """Epsilon rule: R_i = sum_j (W_ji x_i / den(z_j)) R_j, with the matrix of messages j -> i.

    Parameters
    ----------
    x : Tensor (I,)
    weight : Tensor (O, I)
    z : Tensor (O,)
        The sums, biases included.
    relevance : Tensor (O,)
    epsilon : float

    Source: Bach et al. 2015, eq. 58.
    """
    messages = weight * x.unsqueeze(0) / stabilised(z, epsilon).unsqueeze(1)
    return messages.t() @ relevance


def addition(terms: list[Tensor], relevance: Tensor, epsilon: float) -> list[Tensor]:
    """Relevance of the terms (I,) of a sum: a weighted sum with the weight [1 1 ... 1]."""
    size = len(relevance)
    weight = torch.eye(size, dtype=relevance.dtype).repeat(1, len(terms))
    total = torch.stack(terms).sum(0)
    relevances = weighted_sum(torch.cat(terms), weight, total, relevance, epsilon)
    return list(relevances.view(len(terms), size))


def mean(x: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """Relevance of x (N, D) of which the mean (D,) is taken, as a weighted sum."""
    count, size = x.shape
    weight = torch.eye(size, dtype=x.dtype).repeat(1, count) / count
    return weighted_sum(x.flatten(), weight, x.mean(0), relevance, epsilon).view(count, size)


def context(alpha: Tensor, values: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    """Relevance of values (N, H) in sum_k alpha_k V_k, with alpha (N,) as constants."""
    count, size = values.shape
    weight = torch.cat([a * torch.eye(size, dtype=values.dtype) for a in alpha], 1)
    z = weight @ values.flatten()
    return weighted_sum(values.flatten(), weight, z, relevance, epsilon).view(count, size)


def normalisation(
    x: Tensor, weight: Tensor, bias: Tensor, relevance: Tensor, epsilon: float, inside: float
) -> Tensor:
    """Layer normalisation of x (I,) as a linear map: diag(w) (1 - 11^T / I) / deviation.

    `inside` is the constant under the root of the deviation. Source: Ali et al. 2022 (XAI
    for transformers).
    """
    size = len(x)
    centred = torch.eye(size, dtype=x.dtype) - 1 / size
    matrix = weight.unsqueeze(1) * centred / (x.var(correction=0) + inside).sqrt()
    return weighted_sum(x, matrix, matrix @ x + bias, relevance, epsilon)


def derivative(function: Callable[[Tensor], Tensor], x: Tensor, multiplier: Tensor) -> Tensor:
    """Multiplier of x by the Jacobian (O, I) of an operation on vectors: J^T m."""
    jacobian: Tensor = torch.func.jacrev(function)(x)
    return jacobian.t() @ multiplier


def published_mean(x: Tensor, relevance: Tensor, epsilon: float = 0.01) -> Tensor:
    """Mean over the last axis as published: R x_i / den(s), s the *sum*; s = 0 becomes 1/n.

    Source: the program of Sun et al. 2022 (its sum rule is the same).
    """
    total = x.sum(-1, keepdim=True)
    total = torch.where(total == 0, 1 / x.shape[-1], total)
    return relevance.unsqueeze(-1) * x / stabilised(total, epsilon)


def published_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, relevance: Tensor, epsilon: float = 0.01
) -> Tensor:
    """Linear layer of an image network as published, rows x (B, I): zero inputs become -1e-6.

    Without `bias` the stabiliser is applied to x W^T; with it x W^T + b goes unstabilised.
    """
    x = torch.where(x == 0, -1e-6, x)
    z = x @ weight.t()
    z = stabilised(z, epsilon) if bias is None else z + bias
    return x * ((relevance / z) @ weight)
