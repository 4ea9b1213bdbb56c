"""An LSTM cell over several inputs, with an optional sentinel, in relevance operations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from capscope.relevance import operations as ops

INPUT, FORGET, CANDIDATE, OUTPUT, SENTINEL = range(5)


class Cell(NamedTuple):
    """What an LSTM step yields, each (B, K, H); `sentinel` is None without one."""

    h: Tensor
    c: Tensor
    sentinel: Tensor | None


class LSTM(nn.Module):
    """LSTM cell whose input is a list of vectors that are projected one by one.

    What stays the same over steps (image) or is known beforehand (words) is projected once. With
    `sentinel`, a fifth gate sigma(W_x x + W_h h_previous) of tanh(c) gives the visual sentinel
    (Lu et al. 2017, eq. 9-10). Weight rows are ordered i, f, g, o (, sentinel), as in torch.

    Parameters
    ----------
    inputs : sequence of int
        Sizes of the input vectors, in the order of the weight's columns.
    hidden : int
    sentinel : bool
    candidate : str or None
        Name of the candidate in the published errors (`Rules.divisors`).
    """

    def __init__(
        self,
        inputs: Sequence[int],
        hidden: int,
        sentinel: bool = False,
        candidate: str | None = None,
    ) -> None:
        super().__init__()
        self.candidate = candidate
        self.gates = 5 if sentinel else 4
        self.columns = [slice(*ends) for ends in pairwise(accumulate(inputs, initial=0))]
        rows = self.gates * hidden
        self.weight_ih = nn.Parameter(torch.empty(rows, sum(inputs)))
        self.weight_hh = nn.Parameter(torch.empty(rows, hidden))
        self.bias_ih = nn.Parameter(torch.empty(rows))
        self.bias_hh = nn.Parameter(torch.empty(rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as torch draws those of its LSTM."""
        bound = self.weight_hh.shape[1] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def project(self, number: int, x: Tensor, bias: bool = False) -> Tensor:
        """Return the summand of input `number` in the pre-activations: (..., I) -> (..., G H).

        `bias` adds the input bias: one input of the list has to bring it.
        """
        weight = self.weight_ih[:, self.columns[number]]
        return ops.affine(x, weight, self.bias_ih if bias else None, self.gates)

    def forward(self, projected: Tensor, h: Tensor, c: Tensor, late_sentinel: bool = False) -> Cell:
        """Step from (h, c), each (B, K, H), with the summed projections (B, K, G H) of the inputs.

        `late_sentinel` computes the sentinel gate from the new h (as the published fine-tuning
        does, where the captioner itself takes the previous one).
        """
        recurrent = ops.affine(h, self.weight_hh, self.bias_hh, self.gates)
        z = (projected + recurrent).chunk(self.gates, -1)
        candidate = ops.candidate(z[CANDIDATE], self.candidate)
        with ops.constant("gate"):
            i, f, o = (torch.sigmoid(z[gate]) for gate in (INPUT, FORGET, OUTPUT))
        c = ops.add(f * c, i * candidate)
        exposed = ops.tanh(c)
        h = o * exposed
        if self.gates == 4:
            return Cell(h, c, None)
        with ops.constant("sentinel"):
            gate = z[SENTINEL]
            if late_sentinel:
                size = h.shape[-1]
                again = ops.affine(h, self.weight_hh[-size:], self.bias_hh[-size:])
                gate = projected[..., -size:] + again
            gate = torch.sigmoid(gate)
        return Cell(h, c, gate * exposed)
