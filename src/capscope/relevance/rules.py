"""Relevance rules, declared as data: one choice for each kind of operation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Weighting = Literal["epsilon", "derivative"]
Factor = Literal["constant", "derivative"]
Attention = Literal["constant", "derivative", "shared"]
Activation = Literal["secant", "derivative", "pass", "guided"]


@dataclass(frozen=True)
class Rules:
    """What each kind of operation does in backward.

    Relevance is carried as a multiplier m, so that a tensor x has relevance x * m (and an entry
    of exactly 0 has none). With z an output and x an input of an operation, the choices are:

    - ``epsilon``: a weighted sum z = sum_i w_i x_i (+ bias) gives m_x = w m_z z / den(z), that is
      R_i = w_i x_i R_z / den(z) with den(z) = z + epsilon sign(z), and epsilon where z is 0.
      The bias and epsilon absorb their share.
    - ``derivative``: ordinary back-propagation.
    - ``constant``: the factor (gate, attention weight) gets no relevance; the other operand of the
      product gets all of it.
    - ``shared``: the two factors of each product of attention (query and key, weight and value) get
      half of its relevance each, and the softmax between them passes what its derivative does:
      AttnLRP (Achtibat et al. 2024, propositions 3.1 and 3.3).
    - ``secant``: an activation a(z) gives m_z = m_a a(z) / z: relevance passes unchanged.
    - ``pass``: m_z = m_a, as if the activation were not there.
    - ``guided``: m_z = max(m_a, 0) where a(z) > 0, else 0 (guided backpropagation; rectifiers).

    Attributes
    ----------
    linear, addition, mean, context, normalisation : Weighting
        Linear layers; sums of tensors; means over visual features; attention-weighted sums; layer
        normalisation (``epsilon``: an affine map, its deviation a constant).
    gate, sentinel : Factor
        LSTM gates; the sentinel gate (with constant gates it is constant too).
    attention : Attention
        Attention weights.
    activation, rectifier : Activation
        Smooth activations inside the decoder; rectifiers of visual projections.
    times_input : bool
        True: the result is relevance x * m. False: it is m itself (gradients).
    epsilon : float
        The stabiliser, in units of the pre-activations.
    head : int or None
        Multi-head attention carries back the values of this head alone; None: of all heads.
    cuts : frozenset of str
        Named connections of a captioner that carry nothing back (published omissions).
    divisors : frozenset of str
        Named sums of a captioner that share out relevance by another divisor (published errors).

    Sources: Bach et al. 2015 (epsilon rule), Arras et al. 2017 (gates as constants), Springenberg
    et al. 2015 (guided backpropagation), Sun et al. 2022 (captioners).
    """

    linear: Weighting = "epsilon"
    addition: Weighting = "epsilon"
    mean: Weighting = "epsilon"
    context: Weighting = "epsilon"
    normalisation: Weighting = "epsilon"
    gate: Factor = "constant"
    sentinel: Factor = "constant"
    attention: Attention = "constant"
    activation: Activation = "secant"
    rectifier: Activation = "secant"
    times_input: bool = True
    epsilon: float = 0.01
    head: int | None = None
    cuts: frozenset[str] = field(default_factory=frozenset)
    divisors: frozenset[str] = field(default_factory=frozenset)


H1_RECURRENCE = "gridTD: h1 to the next step"
"""The connection h1(t-1) -> attention LSTM(t)."""
CELL_RECURRENCE = "AoA: cell to the next step"
"""The connection c(t-1) -> c(t)."""
GLOBAL_BEFORE = "adaptive: global feature of earlier steps"
"""The global feature at all steps but the one that says the explained word."""
GLOBAL_LATER = "AoA: global feature of later steps"
"""The global feature at all steps but the first."""
CANDIDATE_OUTPUT = "adaptive: candidate"
"""The LSTM's candidate is divided by tanh(z) in place of z."""
BIAS_LEFT_OUT = "adaptive: projections"
"""The projections of visual features are divided by W x in place of W x + b."""

LRP = Rules()
"""Layer-wise relevance propagation: epsilon rule, gates and attention weights as constants."""
ATTN_LRP = replace(LRP, attention="shared")
"""LRP whose attention weights get relevance too (AttnLRP)."""
LRP_AS_PUBLISHED = replace(
    LRP,
    cuts=frozenset({H1_RECURRENCE, CELL_RECURRENCE, GLOBAL_BEFORE}),
    divisors=frozenset({CANDIDATE_OUTPUT, BIAS_LEFT_OUT}),
)
"""LRP of Sun et al. 2022 as programmed, with what each captioner's explainer omits."""
GRADIENT = Rules(
    linear="derivative",
    addition="derivative",
    mean="derivative",
    context="derivative",
    normalisation="derivative",
    gate="derivative",
    sentinel="derivative",
    attention="derivative",
    activation="derivative",
    rectifier="derivative",
    times_input=False,
)
"""The derivative of the logit."""
GRADIENT_X_INPUT = replace(GRADIENT, times_input=True)
"""The derivative of the logit times the input."""
GUIDED = replace(GRADIENT, rectifier="guided")
"""The derivative of the logit, of which rectifiers let only the positive part through."""
GRADIENT_AS_PUBLISHED = replace(
    GRADIENT,
    sentinel="constant",
    attention="constant",
    rectifier="pass",
    cuts=frozenset({H1_RECURRENCE, GLOBAL_LATER}),
)
"""The gradient family of Sun et al. 2022: constant attention, rectifiers ignored, omissions."""
