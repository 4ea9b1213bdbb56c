"""Relevance rules of a convolutional network, as data.

Every rule of a linear layer has the same form. With z the sum of its terms, a rule sends

    R_i = sum over branches c of c * sum over terms (g, f) of  g(x)_i * sum_j f(W)_ji S_j,
    S_j = R_j / (z_j + stabiliser),   z = sum over terms of f(W) g(x) + bias part,

so a rule only names, for each branch, the parts g(x) of the input that meet the parts f(W) of the
weights. The engine (`capscope.relevance.image`) executes these; `image_reference` is the slow twin.

Sources: alpha-beta and epsilon, Bach et al. 2015, equations 58 and 60; gamma and the box rule
(z^B), Montavon et al. 2019, table 10.1; flat, Lapuschkin et al. 2019; batch norm and residual sums
as in Sun et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

InputPart = Literal["all", "positive", "negative", "low", "high", "ones"]
"""Part of a layer's input: x, max(x, 0), min(x, 0), the box's bounds (with a minus), or 1."""

WeightPart = Callable[[Tensor], Tensor]


def keep(weight: Tensor) -> Tensor:
    """Return the weights as they are."""
    return weight


def positive(weight: Tensor) -> Tensor:
    """Return max(W, 0)."""
    return weight.clamp(min=0)


def negative(weight: Tensor) -> Tensor:
    """Return min(W, 0)."""
    return weight.clamp(max=0)


def ones(weight: Tensor) -> Tensor:
    """Return 1 for every weight."""
    return weight.new_ones(weight.shape)


@dataclass(frozen=True)
class Term:
    """One product f(W) g(x) of a rule."""

    input: InputPart
    weight: WeightPart


@dataclass(frozen=True)
class Branch:
    """One normalised sum of a rule.

    Attributes
    ----------
    terms : tuple of Term
        What the denominator z is made of and where the relevance goes.
    coefficient : float
        Share of the relevance that the branch carries.
    bias : callable or None
        Part of the layer's bias that joins z; None leaves it out.
    epsilon : float
        Stabiliser: z + epsilon * sign(z). Where z is exactly 0 nothing flows.
    normalised : bool
        False for a gradient: S = R, no denominator.
    """

    terms: tuple[Term, ...]
    coefficient: float = 1.0
    bias: WeightPart | None = None
    epsilon: float = 0.0
    normalised: bool = True


class LayerRule(Protocol):
    """A rule of convolutions and linear layers."""

    def branches(self) -> tuple[Branch, ...]:
        """Return the rule's branches."""


@dataclass(frozen=True)
class AlphaBeta:
    """Positive contributions get alpha of the relevance, negative ones -beta (alpha - beta = 1).

    Attributes
    ----------
    alpha, beta : float
        Shares of the two branches; beta = 0 leaves the second one out.
    bias : {"ignore", "split", "published"}
        ``split`` adds max(b, 0) to the positive and min(b, 0) to the negative denominator;
        ``published`` adds b to both, as the original code of Sun et al. does.
    """

    alpha: float = 1.0
    beta: float = 0.0
    bias: Literal["ignore", "split", "published"] = "ignore"

    def branches(self) -> tuple[Branch, ...]:
        """Return the positive branch and, unless beta is 0, the negative one."""
        parts: dict[str, tuple[WeightPart | None, WeightPart | None]] = {
            "ignore": (None, None),
            "split": (positive, negative),
            "published": (keep, keep),
        }
        bias = parts[self.bias]
        excitation = (Term("positive", positive), Term("negative", negative))
        inhibition = (Term("positive", negative), Term("negative", positive))
        branches = (
            Branch(excitation, self.alpha, bias[0]),
            Branch(inhibition, -self.beta, bias[1]),
        )
        return tuple(branch for branch in branches if branch.coefficient)


@dataclass(frozen=True)
class Epsilon:
    """Contributions in proportion to x_i w_ij, the bias absorbing its share unless left out."""

    epsilon: float = 0.01
    bias: bool = True

    def branches(self) -> tuple[Branch, ...]:
        """Return the single branch."""
        bias = keep if self.bias else None
        return (Branch((Term("all", keep),), bias=bias, epsilon=self.epsilon),)


@dataclass(frozen=True)
class Gamma:
    """Positive contributions count 1 + gamma times; meant for rectified layers."""

    gamma: float = 0.25
    bias: bool = True

    def branches(self) -> tuple[Branch, ...]:
        """Return the single branch."""

        def favour_positive(weight: Tensor) -> Tensor:
            return weight + self.gamma * positive(weight)

        def favour_negative(weight: Tensor) -> Tensor:
            return weight + self.gamma * negative(weight)

        terms = (Term("positive", favour_positive), Term("negative", favour_negative))
        return (Branch(terms, bias=favour_positive if self.bias else None),)


@dataclass(frozen=True)
class Box:
    """Rule z^B for the layer that reads the image: pixel values lie between `low` and `high`.

    Attributes
    ----------
    low, high : tuple of float
        Bounds of each channel after normalisation; the default is black and white under the
        ImageNet mean and deviation.
    """

    low: tuple[float, ...] = (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
    high: tuple[float, ...] = (0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225)

    def branches(self) -> tuple[Branch, ...]:
        """Return the single branch x W - low W+ - high W-."""
        terms = (Term("all", keep), Term("low", positive), Term("high", negative))
        return (Branch(terms),)


@dataclass(frozen=True)
class Flat:
    """Every input of a unit gets the same share; for the layer that reads the image."""

    def branches(self) -> tuple[Branch, ...]:
        """Return the single branch."""
        return (Branch((Term("ones", ones),)),)


@dataclass(frozen=True)
class Gradient:
    """The derivative itself."""

    def branches(self) -> tuple[Branch, ...]:
        """Return the single branch without denominator."""
        return (Branch((Term("all", keep),), normalised=False),)


@dataclass(frozen=True)
class ImageRules:
    """What each kind of layer does with relevance on its way from the grid to the pixels.

    Attributes
    ----------
    convolution, linear : LayerRule
        Rules of the weighted layers.
    first : LayerRule or None
        Rule of layers that read the image; None uses the rule of their kind. `Box` and `Flat` are
        allowed here only.
    batch_norm : {"fold", "epsilon", "identity"}
        ``fold`` merges batch norm into the convolution before it, so that it needs no rule.
        ``epsilon`` is the published one, R |wx| / (|wx| + |b|): it loses what the shift b gets.
        Batch norm without a convolution before it uses ``epsilon`` under ``fold`` too.
    sum_epsilon : float
        Stabiliser of residual sums, R_i = R x_i / (x_1 + x_2 + epsilon sign).
    carries : {"relevance", "gradient", "guided"}
        ``guided`` keeps positive gradients only at every rectifier (guided backpropagation).
    """

    convolution: LayerRule = field(default_factory=AlphaBeta)
    linear: LayerRule = field(default_factory=Epsilon)
    first: LayerRule | None = None
    batch_norm: Literal["fold", "epsilon", "identity"] = "fold"
    sum_epsilon: float = 0.01
    carries: Literal["relevance", "gradient", "guided"] = "relevance"


LRP = ImageRules()
LRP_PUBLISHED = ImageRules(batch_norm="epsilon")
GRADIENT = ImageRules(Gradient(), Gradient(), carries="gradient")
GUIDED = ImageRules(Gradient(), Gradient(), carries="guided")
