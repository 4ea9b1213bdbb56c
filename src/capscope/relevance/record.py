"""What a forward pass in relevance mode leaves for backward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from capscope.relevance.rules import Rules

Kept = Literal["own", "first"]


@dataclass
class Context:
    """One attention-weighted sum that waits for its multiplier."""

    weights: Tensor
    values: Tensor
    result: Tensor


@dataclass
class Copies:
    """A memory tensor that is fed at each step, where only one step's multiplier counts."""

    source: Tensor
    leaves: Tensor
    kept: Kept


@dataclass
class Pass:
    """What a forward pass in relevance mode leaves for backward.

    Attributes
    ----------
    words : list of Tensor
        Embedded words, leaves of the graph.
    borders : list of (Tensor, Tensor)
        Memory tensors as computed from the features, and the leaves that stand for them.
    contexts : list of Context
        Attention-weighted sums over the memory, leaves as well.
    cells, shift : Tensor (B, N, D), (B, 1, D) or None
        The visual features, and a leaf of zeros that is added to each of them: what arrives at it
        is the sum over features. Linear layers project it apart, so that the sum is taken before
        their backward product instead of behind it.
    amount : Tensor (B, N, 1) or None
        A leaf of zeros by which the visual features are larger than they are: what arrives at it is
        their relevance, summed over channels. Linear layers take it behind their weight, so that
        it needs no product of its own.
    copies : list of Copies
        Memory tensors of which each step has a leaf of its own.
    """

    rules: Rules
    words: list[Tensor] = field(default_factory=list)
    borders: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    cells: Tensor | None = None
    shift: Tensor | None = None
    amount: Tensor | None = None
    copies: list[Copies] = field(default_factory=list)
