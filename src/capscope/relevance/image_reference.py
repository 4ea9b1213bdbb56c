"""Slow twins of the image part, written from the equations: the oracle of the tests.

A layer is its dense matrix W (outputs, inputs), z_ji = w_ji x_i are its contributions, and every
rule sends relevance R (of one map, not a multiplier) back as its equation says. Nothing here is
shared with the engine, nothing is fast, and networks are plain `torch.nn.Sequential` stacks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from capscope.errors import CapscopeError
from capscope.relevance.image_rules import (
    AlphaBeta,
    Box,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    ImageRules,
    LayerRule,
)


def sequential(network: nn.Sequential, image: Tensor, start: Tensor, rules: ImageRules) -> Tensor:
    """Send one map of relevance or gradient from a stack's output to its image.

    Parameters
    ----------
    network : Sequential
        Convolution, linear, ReLU, max and average pooling, batch norm and flatten modules.
    image : Tensor (C, H, W)
        Its input.
    start : Tensor
        Relevance of its output, without the batch axis.
    rules : ImageRules
        What each kind of layer does; batch norm is never folded here.
    """
    inputs = [image]
    for module in network:
        inputs.append(module(inputs[-1][None])[0].detach())
    relevance = start
    for index in reversed(range(len(network))):
        module, x = network[index], inputs[index]
        relevance = _layer(module, x, inputs[index + 1], relevance, rules, first=index == 0)
    return relevance


def _layer(
    module: nn.Module, x: Tensor, output: Tensor, relevance: Tensor, rules: ImageRules, first: bool
) -> Tensor:
    gradient = rules.carries != "relevance"
    match module:
        case nn.Conv2d() | nn.Linear():
            rule = rules.convolution if isinstance(module, nn.Conv2d) else rules.linear
            return weighted(rules.first if first and rules.first else rule, module, x, relevance)
        case nn.ReLU():
            if not gradient:
                return relevance
            kept = relevance.clamp(min=0) if rules.carries == "guided" else relevance
            return kept * (output > 0)
        case nn.MaxPool2d() | nn.AvgPool2d() | nn.AdaptiveAvgPool2d():
            slopes = _derivative(module, x)
            if gradient:
                return (relevance.flatten() @ slopes).reshape(x.shape)
            return _shares(slopes * x.flatten(), relevance, 0.0).reshape(x.shape)
        case nn.BatchNorm2d():
            return batch_norm(module, x, relevance, "gradient" if gradient else rules.batch_norm)
        case nn.Flatten():
            return relevance.reshape(x.shape)
    raise CapscopeError(f"the slow twin knows no {type(module).__name__}")


def weighted(
    rule: LayerRule, module: nn.Conv2d | nn.Linear, x: Tensor, relevance: Tensor
) -> Tensor:
    """Send relevance through a convolution or linear layer by the rule's own equation."""
    weights = matrix(module, x)
    bias = torch.zeros(len(weights), dtype=x.dtype)
    if module.bias is not None:
        bias = module.bias.detach().repeat_interleave(len(weights) // len(module.bias))
    contributions = weights * x.flatten()
    match rule:
        case AlphaBeta():
            positive, negative = contributions.clamp(min=0), contributions.clamp(max=0)
            added = {
                "ignore": (0 * bias, 0 * bias),
                "split": (bias.clamp(min=0), bias.clamp(max=0)),
                "published": (bias, bias),
            }[rule.bias]
            sent = rule.alpha * _shares(positive, relevance, 0.0, added[0])
            sent = sent - rule.beta * _shares(negative, relevance, 0.0, added[1])
        case Epsilon():
            sent = _shares(contributions, relevance, rule.epsilon, bias if rule.bias else None)
        case Gamma():
            favoured = contributions + rule.gamma * contributions.clamp(min=0)
            added_bias = bias + rule.gamma * bias.clamp(min=0) if rule.bias else None
            sent = _shares(favoured, relevance, 0.0, added_bias)
        case Box():
            low = torch.tensor(rule.low, dtype=x.dtype)[:, None, None].expand_as(x).flatten()
            high = torch.tensor(rule.high, dtype=x.dtype)[:, None, None].expand_as(x).flatten()
            bounded = weights.clamp(min=0) * low + weights.clamp(max=0) * high
            sent = _shares(contributions - bounded, relevance, 0.0)
        case Flat():
            reads = _derivative(_like(module, torch.ones_like(module.weight)), x)
            sent = _shares(reads, relevance, 0.0)
        case Gradient():
            sent = relevance.flatten() @ weights
        case _:
            raise CapscopeError(f"the slow twin knows no rule {rule}")
    return sent.reshape(x.shape)


def matrix(module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Return a layer as a dense matrix (outputs, inputs), for inputs of the shape of x."""
    return _derivative(_like(module, module.weight.detach()), x)


def batch_norm(module: nn.BatchNorm2d, x: Tensor, relevance: Tensor, rule: str) -> Tensor:
    """Send relevance through batch norm: R |wx| / (|wx| + |b|), R itself, or the gradient."""
    assert module.running_mean is not None
    assert module.running_var is not None
    weight = module.weight.detach() / torch.sqrt(module.running_var + module.eps)
    bias = module.bias.detach() - module.running_mean * weight
    weight, bias = weight[:, None, None], bias[:, None, None]
    if rule == "gradient":
        return relevance * weight
    if rule == "identity":
        return relevance
    part = (weight * x).abs()
    return relevance * part / (part + bias.abs())


def add(
    one: Tensor, other: Tensor, relevance: Tensor, epsilon: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Split relevance of a sum: R x_i / (x_1 + x_2 + epsilon sign); 0 + 0 is split in halves."""
    total = one + other
    ratio = relevance / (total + epsilon * total.sign())
    both_zero = (one == 0) & (other == 0)
    half = relevance / 2
    return torch.where(both_zero, half, one * ratio), torch.where(both_zero, half, other * ratio)


def _shares(
    contributions: Tensor, relevance: Tensor, epsilon: float, bias: Tensor | None = None
) -> Tensor:
    """Return R_i = sum_j z_ji / (sum_i z_ji + b_j + epsilon sign) R_j, with 0 / 0 = 0."""
    total = contributions.sum(1) + (0 if bias is None else bias)
    stable = total + epsilon * total.sign()
    share = torch.where(total == 0, torch.zeros_like(total), relevance.flatten() / stable)
    return share @ contributions


def _derivative(module: nn.Module, x: Tensor) -> Tensor:
    """Return the Jacobian (outputs, inputs) of a module at x."""
    value = x.detach().clone().requires_grad_()
    output = module(value[None])[0].flatten()
    units = torch.eye(len(output), dtype=x.dtype)
    (jacobian,) = torch.autograd.grad(output, value, units, is_grads_batched=True)
    return jacobian.reshape(len(output), -1)


def _like(module: nn.Conv2d | nn.Linear, weight: Tensor) -> nn.Module:
    """Return the same layer with other weights and without bias."""
    options = {}
    if isinstance(module, nn.Conv2d):
        names = ("stride", "padding", "dilation", "groups")
        options = {name: getattr(module, name) for name in names}

    class Linear(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            if isinstance(module, nn.Conv2d):
                return functional.conv2d(value, weight, None, **options)
            return functional.linear(value, weight)

    return Linear()
