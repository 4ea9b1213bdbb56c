"""LRP through gridTD as one closed recursion: the slow twin of the engine's backward pass.

One image, one word, one step at a time, as the equations stand in Sun et al. 2022 (and in the
published program). Besides the relevance it counts what biases, stabilisers and discarded
connections take, so that nothing is left unexplained: all shares sum to the logit.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.relevance.reference import stabilised

if TYPE_CHECKING:
    from capscope.models.gridtd import GridTD, Moment


@dataclass
class Trace:
    """Relevance for one word t of one image; step lists run over i = 0..t.

    Attributes
    ----------
    features, values : Tensor (N, D), (N, H)
        Visual features, and their rectified projections (by the attention alone).
    pooled : Tensor (E,)
        The global feature.
    words : Tensor (t + 1, E)
        Embedded inputs.
    h1, c1, h2, c2 : Tensor (t + 1, H)
        States after step i; h1 from the language LSTM alone where its recurrence is discarded.
    mixed, context : Tensor (t + 1, H)
    below, above : Tensor (t + 1, ...)
        Inputs of the candidates of attention LSTM [h2, global, word, h1] and language LSTM
        [mixed, h1, h2].
    shares : dict
        What ``bias``, ``stabiliser`` and ``discarded`` took.
    """

    logit: float
    features: Tensor
    values: Tensor
    pooled: Tensor
    words: Tensor
    h1: Tensor
    c1: Tensor
    h2: Tensor
    c2: Tensor
    mixed: Tensor
    context: Tensor
    below: Tensor
    above: Tensor
    shares: dict[str, float] = field(default_factory=dict)


def gridtd_lrp(
    captioner: GridTD,
    features: Features,
    word_ids: Tensor,
    epsilon: float = 0.01,
    discard_recurrence: bool = False,
) -> list[list[Trace]]:
    """Explain every word of captions (B, T + 1); returns traces by image and word.

    `discard_recurrence` drops the relevance that h1 receives from the next step, as published.
    """
    captioner.eval()
    with torch.no_grad():
        moments = list(captioner.unroll(features, word_ids[:, :-1]))
        return [
            [
                _Word(captioner, features, moments, row, epsilon).explain(
                    word_ids[row], step, discard_recurrence
                )
                for step in range(len(moments))
            ]
            for row in range(len(word_ids))
        ]


class _Word:
    """The recursion for one image; `E` and `L` are the sheet's two rules, with their losses."""

    def __init__(
        self, captioner: GridTD, features: Features, moments: list[Moment], row: int, epsilon: float
    ) -> None:
        self.model = captioner
        self.epsilon = epsilon
        self.cells = features.cells[row]
        valid = None if captioner.parity or features.valid is None else features.valid[row]
        count = len(self.cells) if valid is None else int(valid.sum())
        self.part = torch.full((len(self.cells), 1), 1 / count, dtype=self.cells.dtype)
        if valid is not None:
            self.part = self.part * valid.unsqueeze(1)
        self.moments = [type(moment)(*(tensor[row, 0] for tensor in moment)) for moment in moments]
        self.lost: dict[str, float] = defaultdict(float)

    def E(self, relevance: Tensor, x: Tensor, z: Tensor) -> Tensor:  # noqa: N802
        """Element-wise epsilon rule: x R / den(z)."""
        return x * relevance / stabilised(z, self.epsilon)

    def L(  # noqa: N802
        self, relevance: Tensor, x: Tensor, z: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Linear epsilon rule: x ((R / den(z)) W)."""
        quotient = relevance / stabilised(z, self.epsilon)
        self.lost["bias"] += float((quotient * bias).sum())
        self.lose("stabiliser", relevance - quotient * z)
        return x * (quotient @ weight)

    def lose(self, share: str, relevance: Tensor) -> None:
        self.lost[share] += float(relevance.sum())

    def explain(self, word_ids: Tensor, step: int, discard_recurrence: bool) -> Trace:
        """Explain the word after `step` of the image's caption."""
        model, moments, size = self.model, self.moments, self.model.hidden_size
        self.lost = defaultdict(float)
        candidate = slice(2 * size, 3 * size)
        g1 = torch.cat([model.attention_lstm.weight_ih, model.attention_lstm.weight_hh], 1)
        g2 = torch.cat([model.language_lstm.weight_ih, model.language_lstm.weight_hh], 1)
        b1 = model.attention_lstm.bias_ih + model.attention_lstm.bias_hh
        b2 = model.language_lstm.bias_ih + model.language_lstm.bias_hh

        projected = self.cells @ model.projection.weight.t() + model.projection.bias
        values = projected.relu()
        source = self.cells if model.global_from == "features" else values
        average = (self.part * source).sum(0)
        unrectified = model.global_projection.weight @ average + model.global_projection.bias
        pooled = unrectified.relu()

        target = int(word_ids[step + 1])
        u = moments[step].h2 + moments[step].mixed
        logits = model.words.weight @ u + model.words.bias
        start = torch.zeros_like(logits)
        start[target] = logits[target]
        q = self.L(start, u, logits, model.words.weight, model.words.bias)
        to_h2 = self.E(q, moments[step].h2, u)
        to_mixed = self.E(q, moments[step].mixed, u)
        self.lose("stabiliser", q - to_h2 - to_mixed)

        zero = torch.zeros(size, dtype=u.dtype)
        carry1, carry2, recurrent1 = zero, zero, zero
        to_values = torch.zeros_like(values)
        to_pooled = torch.zeros_like(pooled)
        rows: dict[str, list[Tensor]] = {name: [] for name in STEPWISE}
        for i in range(step, -1, -1):
            now = moments[i]
            h1_p, c1_p, h2_p, c2_p = (
                (moments[i - 1].h1, moments[i - 1].c1, moments[i - 1].h2, moments[i - 1].c2)
                if i
                else (zero, zero, zero, zero)
            )
            embedded = model.embedding.weight[word_ids[i]]
            x1 = torch.cat([h2_p, pooled, embedded, h1_p])
            x2 = torch.cat([now.mixed, now.h1, h2_p])
            z1, z2 = g1[: 4 * size] @ x1 + b1[: 4 * size], g2 @ x2 + b2

            to_c2 = carry2 + to_h2
            rows["h2"].append(to_h2)
            rows["c2"].append(to_c2)
            to_g2, carry2 = self.cell(to_c2, z2, now.c2, c2_p)
            above = self.L(to_g2, x2, z2[candidate], g2[candidate], b2[candidate])
            to_h2 = above[2 * size :]

            to_mixed = above[:size] + (to_mixed if i == step else zero)
            to_sentinel = self.E(to_mixed, now.beta * now.sentinel, now.mixed)
            to_context = self.E(to_mixed, (1 - now.beta) * now.context, now.mixed)
            self.lose("stabiliser", to_mixed - to_sentinel - to_context)
            spread = self.E(to_context, now.alpha.unsqueeze(1) * values, now.context)
            self.lose("stabiliser", to_context - spread.sum(0))
            to_values = to_values + spread

            to_h1 = above[size : 2 * size]
            if discard_recurrence:
                self.lose("discarded", recurrent1)
            else:
                to_h1 = to_h1 + recurrent1
            to_c1 = carry1 + to_sentinel + to_h1
            to_g1, carry1 = self.cell(to_c1, z1, now.c1, c1_p)
            below = self.L(to_g1, x1, z1[candidate], g1[candidate], b1[candidate])
            to_h2 = to_h2 + below[:size]
            to_pooled = to_pooled + below[size : size + len(pooled)]
            recurrent1 = below[size + len(pooled) + len(embedded) :]

            rows["words"].append(below[size + len(pooled) : -size])
            rows["mixed"].append(to_mixed)
            rows["context"].append(to_context)
            rows["h1"].append(to_h1)
            rows["c1"].append(to_c1)
            rows["below"].append(below)
            rows["above"].append(above)

        to_average = self.L(
            to_pooled,
            average,
            unrectified,
            model.global_projection.weight,
            model.global_projection.bias,
        )
        to_source = self.E(to_average, self.part * source, average)
        self.lose("stabiliser", to_average - to_source.sum(0))
        from_source = model.global_from == "features"
        to_projected = to_values if from_source else to_values + to_source
        to_cells = self.L(
            to_projected, self.cells, projected, model.projection.weight, model.projection.bias
        )
        if from_source:
            to_cells = to_cells + to_source
        return Trace(
            logit=float(logits[target]),
            features=to_cells,
            values=to_values,
            pooled=to_pooled,
            shares=dict(self.lost),
            **{name: torch.stack(tensors[::-1]) for name, tensors in rows.items()},
        )

    def cell(self, relevance: Tensor, z: Tensor, c: Tensor, c_p: Tensor) -> tuple[Tensor, Tensor]:
        """Split the relevance of c = i tanh(z_g) + f c_p: to z_g (tanh is identity) and to c_p."""
        i, f, g, _ = z.chunk(4)
        to_g = self.E(relevance, torch.sigmoid(i) * torch.tanh(g), c)
        carry = self.E(relevance, torch.sigmoid(f) * c_p, c)
        self.lose("stabiliser", relevance - to_g - carry)
        return to_g, carry


STEPWISE = ("words", "h1", "c1", "h2", "c2", "mixed", "context", "below", "above")
