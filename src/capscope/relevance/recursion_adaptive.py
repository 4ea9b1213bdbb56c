"""LRP through adaptive attention as a closed recursion; see `capscope.relevance.recursion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.relevance.recursion import Recursion, Trace, candidate_rows

if TYPE_CHECKING:
    from capscope.models.adaptive import Adaptive, Moments


def adaptive_lrp(
    captioner: Adaptive,
    features: Features,
    word_ids: Tensor,
    epsilon: float = 0.01,
    published: bool = False,
) -> list[list[Trace]]:
    """Explain every word of captions (B, T + 1); returns traces by image and word.

    `published` takes the global feature of the word's own step only, divides by tanh(z) in place
    of z at the candidate, and by W x in place of W x + b at the two projections.

    Parts of a trace: ``values`` (N, H) rectified projections, by the attention alone; ``pooled``
    (E,) the global feature; with a row a step ``h``, ``c`` and ``below``, the input
    [word, global, h] of the candidate.
    """
    captioner.eval()
    with torch.no_grad():
        moments = captioner.unroll(features, word_ids[:, :-1])
        return [
            [
                _Word(captioner, features, moments, row, epsilon).explain(
                    word_ids[row], step, published
                )
                for step in range(word_ids.shape[1] - 1)
            ]
            for row in range(len(word_ids))
        ]


class _Word(Recursion):
    """The recursion for one image."""

    def __init__(
        self, captioner: Adaptive, features: Features, moments: Moments, row: int, epsilon: float
    ) -> None:
        super().__init__(captioner, features, row, epsilon)
        self.model = captioner
        self.moments = type(moments)(*(tensor[row] for tensor in moments))

    def explain(self, word_ids: Tensor, step: int, published: bool) -> Trace:
        """Explain the word after `step` of the image's caption."""
        model, at, size = self.model, self.moments, self.model.hidden_size
        candidate, g, b = candidate_rows(model.lstm)
        projection, pooling = model.projection, model.global_projection

        without_bias = self.cells @ projection.weight.t()
        projected = without_bias + projection.bias
        values = projected.relu()
        source = self.cells if model.global_from == "features" else values
        average = (self.part * source).sum(0)
        unrectified = pooling.weight @ average + pooling.bias
        pooled = unrectified.relu()

        u = at.h[step] + at.mixed[step]
        logit, q = self.word(model.words, u, int(word_ids[step + 1]))
        to_h, to_mixed = self.split(q, [at.h[step], at.mixed[step]], u)
        to_sentinel, to_context = self.split(
            to_mixed,
            [at.beta[step] * at.sentinel[step], (1 - at.beta[step]) * at.context[step]],
            at.mixed[step],
        )
        to_values = self.spread(to_context, at.alpha[step].unsqueeze(1) * values, at.context[step])

        zero = torch.zeros(size, dtype=u.dtype)
        carry = zero
        to_pooled = torch.zeros_like(pooled)
        rows: dict[str, list[Tensor]] = {name: [] for name in ("words", "h", "c", "below")}
        for i in range(step, -1, -1):
            h_p, c_p = (at.h[i - 1], at.c[i - 1]) if i else (zero, zero)
            embedded = model.embedding.weight[word_ids[i]]
            x = torch.cat([embedded, pooled, h_p])
            z = g[: 4 * size] @ x + b[: 4 * size]
            to_c = carry + to_h + (to_sentinel if i == step else zero)
            rows["h"].append(to_h)
            rows["c"].append(to_c)
            to_g, carry = self.cell(to_c, z, at.c[i], c_p)
            divisor = torch.tanh(z[candidate]) if published else None
            below = self.L(to_g, x, z[candidate], g[candidate], b[candidate], divisor)
            to_global = below[len(embedded) : len(embedded) + len(pooled)]
            if published and i != step:
                self.lose("discarded", to_global)
            else:
                to_pooled = to_pooled + to_global
            to_h = below[-size:]
            rows["words"].append(below[: len(embedded)])
            rows["below"].append(below)

        to_average = self.L(
            to_pooled,
            average,
            unrectified,
            pooling.weight,
            pooling.bias,
            unrectified - pooling.bias if published else None,
        )
        to_source = self.spread(to_average, self.part * source, average)
        from_source = model.global_from == "features"
        to_cells = self.L(
            to_values if from_source else to_values + to_source,
            self.cells,
            projected,
            projection.weight,
            projection.bias,
            without_bias if published else None,
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
