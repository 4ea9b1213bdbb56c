"""Stacks of LSTM or GRU cells without biases, in relevance operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.models.captioner import State
from capscope.relevance import operations as ops

Kind = Literal["lstm", "gru"]
GATES = {"lstm": 4, "gru": 3}


class PlainCell(nn.Module):
    """One LSTM or GRU cell without biases; rows of weights are ordered as in torch.

    i, f, g, o of the LSTM (Hochreiter and Schmidhuber 1997), r, z, n of the GRU (Cho et al. 2014).
    """

    def __init__(self, kind: Kind, size: int, hidden: int) -> None:
        super().__init__()
        self.kind = kind
        self.weight_ih = nn.Parameter(torch.empty(GATES[kind] * hidden, size))
        self.weight_hh = nn.Parameter(torch.empty(GATES[kind] * hidden, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as torch draws those of its LSTM."""
        bound = self.weight_hh.shape[1] ** -0.5
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Step from h and c (B, K, H) with the input x (B, K, I); a GRU leaves c as it is."""
        if self.kind == "lstm":
            z = ops.affine(x, self.weight_ih, None, 4) + ops.affine(h, self.weight_hh, None, 4)
            i, f, g, o = z.chunk(4, -1)
            with ops.constant("gate"):
                i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
            c = ops.add(f * c, i * ops.tanh(ops.stabilise(g, "linear")))
            return o * ops.tanh(c), c
        visible, recurrent = self.weight_ih.chunk(3), self.weight_hh.chunk(3)
        with ops.constant("gate"):
            r, z = (
                torch.sigmoid(ops.affine(x, visible[gate]) + ops.affine(h, recurrent[gate]))
                for gate in (0, 1)
            )
        found = ops.affine(x, visible[2]) + r * ops.affine(h, recurrent[2])
        candidate = ops.tanh(ops.stabilise(found, "linear"))
        return ops.add((1 - z) * candidate, z * h), c


class Stack(nn.Module):
    """Cells on top of each other, with dropout between them.

    Parameters
    ----------
    kind : {"lstm", "gru"}
    size, hidden, layers : int
        Of the input, of each cell's state, and how many cells.
    dropout : float
        On what a cell passes to the next, in training.
    """

    def __init__(self, kind: Kind, size: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        if kind not in GATES:
            raise CapscopeError(f"cell is {kind!r}; allowed: {', '.join(GATES)}")
        self.cells = nn.ModuleList(
            PlainCell(kind, hidden if layer else size, hidden) for layer in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def start(self, first: Sequence[Tensor]) -> State:
        """Return the state with h = c = `first` (B, K, H), one a layer."""
        return {f"{name}{i}": x for i, x in enumerate(first) for name in ("h", "c")}

    def top(self, state: State) -> Tensor:
        """Return the hidden state (B, K, H) of the last cell."""
        return state[f"h{len(self.cells) - 1}"]

    def forward(self, x: Tensor, state: State) -> State:
        """Step with the input x (B, K, I)."""
        following: State = {}
        for i, cell in enumerate(self.cells):
            x = self.dropout(x) if i else x
            x, following[f"c{i}"] = cell(x, state[f"h{i}"], state[f"c{i}"])
            following[f"h{i}"] = x
        return following
