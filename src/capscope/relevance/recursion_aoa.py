"""LRP through AoA as a closed recursion; see `capscope.relevance.recursion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.relevance.recursion import Recursion, Trace, candidate_rows

if TYPE_CHECKING:
    from capscope.models.aoa import AoA, Moments


def aoa_lrp(
    captioner: AoA,
    features: Features,
    word_ids: Tensor,
    epsilon: float = 0.01,
    published: bool = False,
    head: int | None = None,
) -> list[list[Trace]]:
    """Explain every word of captions (B, T + 1); returns traces by image and word.

    `published` loses the relevance that a cell passes to the cell before it. `head` explains by
    the values of one head, and discards what the others get.

    Parts of a trace: ``gated`` (H,) the gated context; ``context`` (H,) the heads' sums;
    ``values`` (N, H) of attention; ``projected`` (N, H) rectified projections; ``pooled`` (H,) the
    global feature; with a row a step ``h``, ``c`` and ``below``, the input [word, global, h] of
    the candidate.
    """
    captioner.eval()
    with torch.no_grad():
        moments = captioner.unroll(features, word_ids[:, :-1])
        return [
            [
                _Word(captioner, features, moments, row, epsilon).explain(
                    word_ids[row], step, published, head
                )
                for step in range(word_ids.shape[1] - 1)
            ]
            for row in range(len(word_ids))
        ]


class _Word(Recursion):
    """The recursion for one image."""

    def __init__(
        self, captioner: AoA, features: Features, moments: Moments, row: int, epsilon: float
    ) -> None:
        super().__init__(captioner, features, row, epsilon)
        self.model = captioner
        self.moments = type(moments)(*(tensor[row] for tensor in moments))

    def explain(self, word_ids: Tensor, step: int, published: bool, head: int | None) -> Trace:
        """Explain the word after `step` of the image's caption."""
        model, at, size = self.model, self.moments, self.model.hidden_size
        candidate, g, b = candidate_rows(model.lstm)
        projection, linear, value = model.projection, model.linear, model.attention.value

        unrectified = self.cells @ projection.weight.t() + projection.bias
        projected = unrectified.relu()
        pooled = (self.part * projected).sum(0)
        values = projected @ value.weight.t() + value.bias

        u = at.h[step] + at.gated[step]
        logit, q = self.word(model.words, u, int(word_ids[step + 1]))
        to_h, to_gated = self.split(q, [at.h[step], at.gated[step]], u)
        ungated = linear.weight @ at.context[step] + linear.bias
        to_context = self.L(to_gated, at.context[step], ungated, linear.weight, linear.bias)
        to_values = torch.zeros_like(values)
        width = size // model.attention.heads
        for j, weights in enumerate(at.weights[step]):
            block = slice(j * width, (j + 1) * width)
            if head is not None and head != j:
                self.lose("discarded", to_context[block])
                continue
            to_values[:, block] = self.spread(
                to_context[block], weights.unsqueeze(1) * values[:, block], at.context[step][block]
            )

        zero = torch.zeros(size, dtype=u.dtype)
        carry = zero
        to_pooled = torch.zeros_like(pooled)
        rows: dict[str, list[Tensor]] = {name: [] for name in ("words", "h", "c", "below")}
        for i in range(step, -1, -1):
            h_p, c_p = (at.h[i - 1], at.c[i - 1]) if i else (zero, zero)
            embedded = model.embedding.weight[word_ids[i]]
            x = torch.cat([embedded, pooled, h_p])
            z = g @ x + b
            if published:
                self.lose("discarded", carry)
                carry = zero
            to_c = carry + to_h
            rows["h"].append(to_h)
            rows["c"].append(to_c)
            to_g, carry = self.cell(to_c, z, at.c[i], c_p)
            below = self.L(to_g, x, z[candidate], g[candidate], b[candidate])
            to_pooled = to_pooled + below[len(embedded) : -size]
            to_h = below[-size:]
            rows["words"].append(below[: len(embedded)])
            rows["below"].append(below)

        from_values = self.L(to_values, projected, values, value.weight, value.bias)
        to_projected = self.spread(to_pooled, self.part * projected, pooled) + from_values
        to_cells = self.L(to_projected, self.cells, unrectified, projection.weight, projection.bias)
        parts = {name: torch.stack(tensors[::-1]) for name, tensors in rows.items()}
        return Trace(
            logit=logit,
            features=to_cells,
            words=parts.pop("words"),
            parts={
                **parts,
                "gated": to_gated,
                "context": to_context,
                "values": to_values,
                "projected": to_projected,
                "pooled": to_pooled,
            },
            shares=dict(self.lost),
        )
