"""Recurrent cells in relevance operations: LSTM over several inputs, with a sentinel; RNN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from capscope.models.layers.shared_weight import SharedWeight
from capscope.relevance import operations as ops

RECURRENT = -1  # number of the recurrent input, behind those of the list
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
        self._shared: dict[int, SharedWeight] | None = None
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
        return self._multiply(number, x, self.bias_ih if bias else None)

    @contextmanager
    def over_steps(self) -> Iterator[None]:
        """Take the gradients of the weights in one product over all steps in the block."""
        self._shared = {} if ops.plain() and torch.is_grad_enabled() else None
        try:
            yield
        finally:
            self._shared = None

    def _multiply(self, number: int, x: Tensor, bias: Tensor | None) -> Tensor:
        if self._shared is not None and number in self._shared:
            product = self._shared[number](x)
            return product if bias is None else product + bias
        recurrent = number == RECURRENT
        weight = self.weight_hh if recurrent else self.weight_ih[:, self.columns[number]]
        if self._shared is not None and weight.requires_grad:
            self._shared[number] = SharedWeight(weight)
            return self._multiply(number, x, bias)
        return ops.affine(x, weight, bias, self.gates)

    def forward(self, projected: Tensor, h: Tensor, c: Tensor, late_sentinel: bool = False) -> Cell:
        """Step from (h, c), each (B, K, H), with the summed projections (B, K, G H) of the inputs.

        `late_sentinel` computes the sentinel gate from the new h (as the published fine-tuning
        does, where the captioner itself takes the previous one).
        """
        recurrent = self._multiply(RECURRENT, h, self.bias_hh)
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


@contextmanager
def over_steps(model: nn.Module) -> Iterator[None]:
    """Take the gradients of all LSTMs of a model in one product over all steps in the block."""
    with ExitStack() as stack:
        for part in model.modules():
            if isinstance(part, LSTM):
                stack.enter_context(part.over_steps())
        yield


class SingleBiasLSTM(LSTM):
    """LSTM with one bias; drawn anew, weights are N(0, 1 / fan-in) and biases 0."""

    def __init__(self, inputs: Sequence[int], hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for columns in self.columns:
            _draw(self.weight_ih[:, columns])
        _draw(self.weight_hh)
        nn.init.zeros_(self.bias_ih)

    def remember(self, forget_bias: float) -> None:
        """Set the bias of the forget gate, which says how long new cells keep what they know.

        At 0 they lose half of it at every step, and learn late what the image, before the first
        word, has to do with later ones (Gers et al. 2000; Jozefowicz et al. 2015).
        """
        with torch.no_grad():
            self.bias_ih.chunk(self.gates)[FORGET].fill_(forget_bias)

    def all_steps(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Return h of all steps (B, T, H) from inputs (B, T, I), by torch's fused kernel."""
        weights = [self.weight_ih, self.weight_hh, self.bias_ih, torch.zeros_like(self.bias_ih)]
        first = (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous())
        found: Tensor = torch.lstm(x, first, weights, True, 1, 0.0, self.training, False, True)[0]
        return found


class RNN(nn.Module):
    """h = tanh(W_x x + W_h h + b) (Elman 1990); weights are drawn N(0, 1 / fan-in), biases 0."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(hidden, size))
        self.weight_hh = nn.Parameter(torch.empty(hidden, hidden))
        self.bias = nn.Parameter(torch.empty(hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        _draw(self.weight_ih)
        _draw(self.weight_hh)
        nn.init.zeros_(self.bias)

    def remember(self) -> None:
        """Set W_h to the identity: a new cell keeps what it knows (after Le et al. 2015)."""
        nn.init.eye_(self.weight_hh)

    def project(self, x: Tensor) -> Tensor:
        """Return W_x x + b: (..., I) -> (..., H)."""
        return ops.affine(x, self.weight_ih, self.bias)

    def forward(self, projected: Tensor, h: Tensor) -> Tensor:
        """Step from h (B, K, H) with the projected input (B, K, H)."""
        return ops.tanh(ops.stabilise(projected + ops.affine(h, self.weight_hh), "linear"))


class WordEmbedding(nn.Embedding):
    """Word vectors drawn N(0, 1 / vocabulary size)."""

    def reset_parameters(self) -> None:
        """Draw all vectors anew."""
        nn.init.normal_(self.weight, std=self.num_embeddings**-0.5)


def _draw(weight: Tensor) -> None:
    with torch.no_grad():
        weight.normal_(std=weight.shape[1] ** -0.5)
