"""LRP through the recurrent captioners as a closed recursion; see `relevance.recursion`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.relevance.recursion import Recursion, Trace, candidate_rows

if TYPE_CHECKING:
    from capscope.models.captioner import Memory
    from capscope.models.recurrent import Moment, Recurrent


def recurrent_lrp(
    captioner: Recurrent, features: Features, word_ids: Tensor, epsilon: float = 0.01
) -> list[list[Trace]]:
    """Explain every word of captions (B, T + 1); returns traces by image and word.

    Parts of a trace: ``first`` (H,) the first state, what it is as h and as c together; with a row
    a step ``h``, and ``below``, the input [word, (context,) h] of the cell or its candidate; with
    attention ``values`` (N, H), by attention alone.
    """
    captioner.eval()
    with torch.no_grad():
        memory = captioner.encode(features)
        state, moments = captioner.start(memory), []
        for words in captioner.projected(word_ids[:, :-1]).chunk(word_ids.shape[1] - 1, dim=1):
            moments.append(captioner.advance(words, state, memory))
            state = moments[-1].state
        return [
            [
                _Word(captioner, features, memory, moments, row, epsilon).explain(
                    word_ids[row], step
                )
                for step in range(word_ids.shape[1] - 1)
            ]
            for row in range(len(word_ids))
        ]


class _Word(Recursion):
    """The recursion for one image."""

    def __init__(
        self,
        captioner: Recurrent,
        features: Features,
        memory: Memory,
        moments: list[Moment],
        row: int,
        epsilon: float,
    ) -> None:
        super().__init__(captioner, features, row, epsilon)
        self.model: Any = captioner
        self.first = memory["first"][row, 0]
        self.h = [moment.h[row, 0] for moment in moments]
        self.c = [moment.state["c"][row, 0] for moment in moments if "c" in moment.state]
        maps = [moment.attention for moment in moments]
        self.alpha = [one[row, 0] for one in maps if one is not None]

    def explain(self, word_ids: Tensor, step: int) -> Trace:
        """Explain the word after `step` of the image's caption."""
        model, size = self.model, len(self.first)
        logit, to_h = self.word(model.words, self.h[step], int(word_ids[step + 1]))
        values = self.values()
        carry = torch.zeros_like(to_h)
        to_values = torch.zeros_like(values)
        rows: dict[str, list[Tensor]] = {name: [] for name in ("words", "h", "below")}
        for i in range(step, -1, -1):
            rows["h"].append(to_h)
            embedded = model.embedding.weight[word_ids[i]]
            terms = self.alpha[i].unsqueeze(1) * values if self.alpha else values[:0]
            context = terms.sum(0)[: size if self.alpha else 0]
            x = torch.cat([embedded, context, self.h[i - 1] if i else self.first])
            below, carry = self.step(i, x, to_h, carry)
            to_values = to_values + self.spread_context(below, len(embedded), terms, context)
            rows["words"].append(below[: len(embedded)])
            rows["below"].append(below)
            to_h = below[-size:]
        if not self.alpha:  # the image is no part of the first c, which is 0
            carry = torch.zeros_like(carry)
        to_first = to_h + carry
        to_cells = self.through_image(to_first, values, to_values)
        parts = {name: torch.stack(tensors[::-1]) for name, tensors in rows.items()}
        words = parts.pop("words")
        parts |= {"first": to_first, "values": to_values}
        return Trace(logit, to_cells, words, parts, dict(self.lost))

    def step(self, i: int, x: Tensor, to_h: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Pass the relevance of h(i) and c(i) to the input x of the cell, and to c(i - 1)."""
        cell = self.model.cell
        if not self.c:
            weight = torch.cat([cell.weight_ih, cell.weight_hh], 1)
            return self.L(to_h, x, weight @ x + cell.bias, weight, cell.bias), carry
        candidate, weight, bias = candidate_rows(cell)
        first = self.first if self.alpha else torch.zeros_like(self.first)
        z = weight @ x + bias
        to_g, carry = self.cell(to_h + carry, z, self.c[i], self.c[i - 1] if i else first)
        return self.L(to_g, x, z[candidate], weight[candidate], bias[candidate]), carry

    def values(self) -> Tensor:
        """Return what is attended to (N, H); without attention the features themselves."""
        if not self.alpha:
            return self.cells
        projected: Tensor = self.model.projection(self.cells)
        return projected

    def spread_context(self, below: Tensor, words: int, terms: Tensor, total: Tensor) -> Tensor:
        """Return the relevance (N, H) of what is attended to, from that of the context."""
        if not self.alpha:
            return torch.zeros_like(self.cells)
        return self.spread(below[words : words + len(total)], terms, total)

    def through_image(self, to_first: Tensor, values: Tensor, to_values: Tensor) -> Tensor:
        """Pass the relevance of the first state and of the attended values to the features."""
        model = self.model
        if self.alpha:
            layer = model.projection
            to_values = to_values + self.spread(to_first, self.part * values, self.first)
            return self.L(to_values, self.cells, values, layer.weight, layer.bias)
        layer = model.first
        if model.visual == "flatten":
            flat = self.cells.t().flatten()
            found = self.L(to_first, flat, self.first, layer.weight, layer.bias)
            return found.view(self.cells.shape[1], len(self.cells)).t()
        seen = (self.part * self.cells).sum(0)
        to_seen = self.L(to_first, seen, self.first, layer.weight, layer.bias)
        return self.spread(to_seen, self.part * self.cells, seen)
