"""LRP through gridTD as one closed recursion; see `capscope.relevance.recursion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.relevance.recursion import Recursion, Trace, candidate_rows

if TYPE_CHECKING:
    from capscope.models.gridtd import GridTD, Moment

STEPWISE = ("words", "h1", "c1", "h2", "c2", "mixed", "context", "below", "above")


def gridtd_lrp(
    captioner: GridTD,
    features: Features,
    word_ids: Tensor,
    epsilon: float = 0.01,
    published: bool = False,
) -> list[list[Trace]]:
    """Explain every word of captions (B, T + 1); returns traces by image and word.

    `published` discards the relevance that h1 receives from the next step.

    Parts of a trace: ``values`` (N, H) rectified projections, by the attention alone; ``pooled``
    (E,) the global feature; with a row a step ``h1, c1, h2, c2`` (h1 from the language LSTM alone
    where its recurrence is discarded), ``mixed``, ``context``, and the inputs of the candidates,
    ``below`` [h2, global, word, h1] and ``above`` [mixed, h1, h2].
    """
    captioner.eval()
    with torch.no_grad():
        moments = list(captioner.unroll(features, word_ids[:, :-1]))
        return [
            [
                _Word(captioner, features, moments, row, epsilon).explain(
                    word_ids[row], step, published
                )
                for step in range(len(moments))
            ]
            for row in range(len(word_ids))
        ]


class _Word(Recursion):
    """The recursion for one image."""

    def __init__(
        self, captioner: GridTD, features: Features, moments: list[Moment], row: int, epsilon: float
    ) -> None:
        super().__init__(captioner, features, row, epsilon)
        self.model = captioner
        self.moments = [type(moment)(*(tensor[row, 0] for tensor in moment)) for moment in moments]

    def explain(self, word_ids: Tensor, step: int, published: bool) -> Trace:
        """Explain the word after `step` of the image's caption."""
        model, moments, size = self.model, self.moments, self.model.hidden_size
        candidate, g1, b1 = candidate_rows(model.attention_lstm)
        _, g2, b2 = candidate_rows(model.language_lstm)

        projected = self.cells @ model.projection.weight.t() + model.projection.bias
        values = projected.relu()
        source = self.cells if model.global_from == "features" else values
        average = (self.part * source).sum(0)
        unrectified = model.global_projection.weight @ average + model.global_projection.bias
        pooled = unrectified.relu()

        u = moments[step].h2 + moments[step].mixed
        logit, q = self.word(model.words, u, int(word_ids[step + 1]))
        to_h2, to_mixed = self.split(q, [moments[step].h2, moments[step].mixed], u)

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
            to_sentinel, to_context = self.split(
                to_mixed, [now.beta * now.sentinel, (1 - now.beta) * now.context], now.mixed
            )
            to_values = to_values + self.spread(
                to_context, now.alpha.unsqueeze(1) * values, now.context
            )

            to_h1 = above[size : 2 * size]
            if published:
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
        to_source = self.spread(to_average, self.part * source, average)
        from_source = model.global_from == "features"
        to_projected = to_values if from_source else to_values + to_source
        to_cells = self.L(
            to_projected, self.cells, projected, model.projection.weight, model.projection.bias
        )
        if from_source:
            to_cells = to_cells + to_source
        parts = {name: torch.stack(tensors[::-1]) for name, tensors in rows.items()}
        return Trace(
            logit=logit,
            features=to_cells,
            words=parts.pop("words"),
            parts={**parts, "values": to_values, "pooled": to_pooled},
            shares=dict(self.lost),
        )
