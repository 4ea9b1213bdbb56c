"""Optimisers by name, and which parameters decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from capscope.training.loop import Recipe

Group = dict[str, Any]
Build = Callable[[list[Group], "Recipe"], torch.optim.Optimizer]


def _adam(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        groups, recipe.learning_rate, betas=_pair(recipe), eps=recipe.epsilon, fused=True
    )


def _adamw(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, recipe.learning_rate, betas=_pair(recipe), eps=recipe.epsilon, fused=True
    )


def _pair(recipe: Recipe) -> tuple[float, float]:
    first, second = recipe.betas
    return first, second


def _sgd(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, recipe.learning_rate, fused=True)


def _momentum(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, recipe.learning_rate, recipe.betas[0], fused=True)


def _nesterov(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, recipe.learning_rate, recipe.betas[0], nesterov=True, fused=True)


def _adagrad(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(groups, recipe.learning_rate, fused=True)


def _rmsprop(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, recipe.learning_rate, recipe.betas[0], recipe.epsilon)


OPTIMISERS: dict[str, Build] = {
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
}
"""
Adam (Kingma and Ba 2015); AdamW (Loshchilov and Hutter 2019); gradient descent without momentum,
with that of Polyak (1964) and of Nesterov (1983); Adagrad (Duchi et al. 2011); RMSprop (Hinton
2012). Momentum, and the memory of RMSprop, is the first of ``betas``.
"""


def build_optimiser(captioner: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimiser that a recipe names over all parameters that are trained.

    Weight decay shrinks the parameters themselves in ``adamw``, and is a part of the gradient in
    all others. It is for matrices and kernels, unless ``decayed`` is ``all``: shrinking biases,
    word vectors and the factors of normalisation is no regularisation, but as published.
    """
    trained = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    spared: set[int] = set()
    if recipe.decayed == "weights" and recipe.weight_decay:
        spared = {id(part.weight) for part in captioner.modules() if isinstance(part, nn.Embedding)}
        spared |= {id(parameter) for parameter in trained if parameter.dim() < 2}
    groups: list[Group] = [
        {
            "params": [p for p in trained if id(p) not in spared],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in trained if id(p) in spared], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return OPTIMISERS[recipe.optimiser](groups, recipe)
