"""LRP as closed recursions, one for each captioner: the slow twins of the engine's backward pass.

One image, one word, one step at a time, as the equations stand in Sun et al. 2022 (and in the
published program). Besides the relevance they count what biases, stabilisers and discarded
connections take, so that nothing is left unexplained: all shares sum to the logit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from capscope.features.visual import Features
from capscope.relevance.reference import stabilised

if TYPE_CHECKING:
    from capscope.models.captioner import Captioner
    from capscope.models.layers.recurrent import LSTM


@dataclass
class Trace:
    """Relevance for one word t of one image.

    Attributes
    ----------
    features : Tensor (N, D)
        Visual features.
    words : Tensor (t + 1, E)
        Embedded inputs.
    parts : dict of Tensor
        What else the recursion passes, by its name; where it has a row a step, i = 0..t.
    shares : dict of float
        What ``bias``, ``stabiliser`` and ``discarded`` took.
    """

    logit: float
    features: Tensor
    words: Tensor
    parts: Mapping[str, Tensor]
    shares: Mapping[str, float] = field(default_factory=dict)

    def total(self) -> float:
        """Return all that came of the logit."""
        return float(self.features.sum() + self.words.sum()) + sum(self.shares.values())


class Recursion:
    """The sheet's two rules, E and L, for one image, with their losses.

    Parameters
    ----------
    captioner : Captioner
    features : Features
    row : int
        Which image of the batch.
    epsilon : float
    """

    def __init__(self, captioner: Captioner, features: Features, row: int, epsilon: float) -> None:
        self.epsilon = epsilon
        self.cells = features.cells[row]
        keeps_all = bool(getattr(captioner, "parity", False)) or features.valid is None
        valid = None if keeps_all or features.valid is None else features.valid[row]
        count = len(self.cells) if valid is None else int(valid.sum())
        self.part = torch.full((len(self.cells), 1), 1 / count, dtype=self.cells.dtype)
        if valid is not None:
            self.part = self.part * valid.unsqueeze(1)
        self.lost: dict[str, float] = defaultdict(float)

    def E(self, relevance: Tensor, x: Tensor, z: Tensor) -> Tensor:  # noqa: N802
        """Element-wise epsilon rule: x R / den(z)."""
        return x * relevance / stabilised(z, self.epsilon)

    def L(  # noqa: N802
        self,
        relevance: Tensor,
        x: Tensor,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        divisor: Tensor | None = None,
    ) -> Tensor:
        """Linear epsilon rule: x ((R / den(z)) W); `divisor` takes the place of z (published)."""
        quotient = relevance / stabilised(z if divisor is None else divisor, self.epsilon)
        self.lost["bias"] += float((quotient * bias).sum())
        self.lose("stabiliser", relevance - quotient * z)
        return x * (quotient @ weight)

    def lose(self, share: str, relevance: Tensor) -> None:
        """Count relevance that nothing gets."""
        self.lost[share] += float(relevance.sum())

    def split(self, relevance: Tensor, terms: Sequence[Tensor], total: Tensor) -> list[Tensor]:
        """Return the relevance of the terms of a sum."""
        found = [self.E(relevance, term, total) for term in terms]
        self.lose("stabiliser", relevance - sum(found[1:], found[0]))
        return found

    def spread(self, relevance: Tensor, terms: Tensor, total: Tensor) -> Tensor:
        """Return the relevance (N, H) of terms (N, H) whose sum is `total` (H,)."""
        found = self.E(relevance, terms, total)
        self.lose("stabiliser", relevance - found.sum(0))
        return found

    def word(self, layer: nn.Linear, u: Tensor, target: int) -> tuple[float, Tensor]:
        """Return the logit of a word, and the relevance of the input u of the output layer."""
        logits = layer.weight @ u + layer.bias
        start = torch.zeros_like(logits)
        start[target] = logits[target]
        return float(logits[target]), self.L(start, u, logits, layer.weight, layer.bias)

    def cell(self, relevance: Tensor, z: Tensor, c: Tensor, c_p: Tensor) -> tuple[Tensor, Tensor]:
        """Split the relevance of c = i tanh(z_g) + f c_p: to z_g (tanh is identity) and to c_p."""
        i, f, g = z.chunk(4)[:3]
        to_g, carry = self.split(
            relevance, [torch.sigmoid(i) * torch.tanh(g), torch.sigmoid(f) * c_p], c
        )
        return to_g, carry


def candidate_rows(lstm: LSTM) -> tuple[slice, Tensor, Tensor]:
    """Return the rows of an LSTM's candidate, and all of [W_ih | W_hh] and of the biases' sum."""
    size = lstm.weight_hh.shape[1]
    weight = torch.cat([lstm.weight_ih, lstm.weight_hh], 1)
    biases = [bias for name, bias in lstm.named_parameters() if name.startswith("bias")]
    return slice(2 * size, 3 * size), weight, sum(biases[1:], biases[0])
