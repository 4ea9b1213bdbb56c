"""LRP from words to regions through gridTD as Elguendouze et al. 2023 published it.

The published program explains another network than the one that spoke: it confuses the axes of
the visual features, adds one bias twice, loses one recurrent connection and averages features
before they are rectified. None of this fits relevance rules of the captioner, so it is a closed
recursion of its own. With all of `FIXES` it equals `capscope.relevance.backward` with the rules
`LRP`, to which it is then an independent twin. All words of a caption are explained together.

Source: the program of "Explainability in image captioning based on the latent space",
Neurocomputing 546, 2023; the rules are those of Sun et al. 2022.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.relevance.reference import stabilised

if TYPE_CHECKING:
    from capscope.models.gridtd import GridTD

FIXES = ("view", "bias", "h1", "relu")
"""view: feature k is row k of the features, not column k of their memory reshaped to (H, N).
bias: the language LSTM adds bias_hh, not bias_ih again. h1: relevance goes back through the
recurrent connection of the attention LSTM. relu: the average is one of rectified features."""


class Moments(NamedTuple):
    """The state pass: T steps of one image, one row a step; h and c with a zero row in front."""

    x1: Tensor
    x2: Tensor
    h1: Tensor
    c1: Tensor
    h2: Tensor
    c2: Tensor
    z1: Tensor
    """(T, 4H) pre-activations of the attention LSTM: i, f, candidate, o."""
    z2: Tensor
    """(T, 4H) of the language LSTM."""
    alpha: Tensor
    beta: Tensor
    sentinel: Tensor
    context: Tensor
    mixed: Tensor
    logits: Tensor


@dataclass(frozen=True)
class LatentTrace:
    """Relevance of the T words of one caption, and the pass that it comes from.

    Attributes
    ----------
    features : Tensor (T, N, D)
        Visual features.
    values : Tensor (T, N, H)
        Rectified projections, by the attention alone.
    pooled : Tensor (T, E)
        Global feature.
    words : Tensor (T, T, E)
        Embedded inputs; row t, input i; 0 for i > t.
    moments : Moments
    average, unrectified : Tensor (H,), (E,)
        Mean of the rectified projections; the global feature before its rectifier.
    """

    features: Tensor
    values: Tensor
    pooled: Tensor
    words: Tensor
    moments: Moments
    average: Tensor
    unrectified: Tensor

    def scores(self) -> Tensor:
        """Return the relevance (T, N) of visual features, summed over channels."""
        return self.features.sum(-1)

    def word_relevance(self) -> Tensor:
        """Return the relevance (T, T) of inputs over the largest of a word, as published."""
        found = self.words.sum(-1)
        largest = found.abs().amax(1, keepdim=True)
        return found / torch.where(largest > 0, largest, 1.0)


def latent_lrp(
    captioner: GridTD,
    cells: Tensor,
    word_ids: Tensor,
    epsilon: float = 0.01,
    fixes: Collection[str] = (),
) -> LatentTrace:
    """Explain all words of one caption.

    Parameters
    ----------
    captioner : GridTD
        With ``global_from="projected"`` (regions).
    cells : Tensor (N, D)
        Regions of the image, padding included: as published it takes part.
    word_ids : Tensor (T + 1,)
        The caption with the start token.
    epsilon : float
        Of the epsilon rule.
    fixes : collection of str
        Which of `FIXES` to switch on; none is as published.

    Raises
    ------
    CapscopeError
        For another captioner, or an unknown fix.
    """
    unknown = set(fixes) - set(FIXES)
    if unknown:
        raise CapscopeError(f"unknown fix {sorted(unknown)}; there are: {', '.join(FIXES)}")
    if getattr(captioner, "global_from", None) != "projected":
        raise CapscopeError(
            f"the published latent LRP is for gridtd over regions, this is "
            f"{type(captioner).__name__}: use the explainer lrp, which takes every captioner"
        )
    captioner.eval()
    with torch.no_grad():
        return _Caption(captioner, cells, word_ids, epsilon, fixes).explain()


class _Caption:
    """One caption of one image."""

    def __init__(
        self,
        model: GridTD,
        cells: Tensor,
        word_ids: Tensor,
        epsilon: float,
        fixes: Collection[str],
    ) -> None:
        self.model, self.epsilon, self.fixes = model, epsilon, fixes
        self.asked = word_ids[1:]
        self.embedded = model.embedding.weight[word_ids[:-1]]
        projected = cells @ model.projection.weight.T + model.projection.bias
        values = projected.relu()
        self.average = values.mean(0)
        layer = model.global_projection
        self.unrectified = layer.weight @ self.average + layer.bias
        self.cells = self._columns(cells)
        self.projected = self._columns(projected)
        self.values = self._columns(values)
        self.size = model.hidden_size

    def _columns(self, rows: Tensor) -> Tensor:
        """Return feature k as row k of (N, X): truly, or from memory read as (X, N)."""
        if "view" in self.fixes:
            return rows
        return rows.reshape(rows.shape[1], rows.shape[0]).T

    def den(self, z: Tensor) -> Tensor:
        return stabilised(z, self.epsilon)

    def state_pass(self) -> Moments:
        """Run the captioner teacher-forced, with the published errors that are not fixed."""
        model, size = self.model, self.size
        below, above = model.attention_lstm, model.language_lstm
        extra = above.bias_hh if "bias" in self.fixes else above.bias_ih
        h1, c1, h2, c2 = ([self.average.new_zeros(size)] for _ in range(4))
        rows: dict[str, list[Tensor]] = {name: [] for name in Moments._fields}
        keys = model.attention.keys(self.values.unsqueeze(0))
        pooled = self.unrectified.relu().expand(len(self.embedded), -1)
        given = torch.cat([pooled, self.embedded], 1)
        fixed = given @ below.weight_ih[:, size:].T + below.bias_ih + below.bias_hh
        for known, part in zip(given, fixed, strict=True):
            x1 = torch.cat([h2[-1], known])
            z = below.weight_ih[:, :size] @ h2[-1] + part + below.weight_hh @ h1[-1]
            i, f, _, o = z[: 4 * size].sigmoid().chunk(4)
            c1.append(f * c1[-1] + i * z[2 * size : 3 * size].tanh())
            h1.append(o * c1[-1].tanh())
            sentinel = z[4 * size :].sigmoid() * c1[-1].tanh()
            attended = model.attention(
                h1[-1].view(1, 1, -1), sentinel.view(1, 1, -1), self.values.unsqueeze(0), keys, None
            )
            mixed = attended.mixed[0, 0]
            x2 = torch.cat([mixed, h1[-1]])
            z2 = above.weight_ih @ x2 + above.bias_ih + above.weight_hh @ h2[-1] + extra
            i, f, _, o = z2.sigmoid().chunk(4)
            c2.append(f * c2[-1] + i * z2[2 * size : 3 * size].tanh())
            h2.append(o * c2[-1].tanh())
            step = {
                "x1": x1,
                "x2": x2,
                "z1": z[: 4 * size],
                "z2": z2,
                "alpha": attended.alpha[0, 0],
                "beta": attended.beta[0, 0],
                "sentinel": sentinel,
                "context": attended.context[0, 0],
                "mixed": mixed,
            }
            for name, value in step.items():
                rows[name].append(value)
        rows.update(h1=h1, c1=c1, h2=h2, c2=c2)
        read = torch.stack(rows["mixed"]) + torch.stack(h2[1:])
        rows["logits"] = list(read @ model.words.weight.T + model.words.bias)
        return Moments(*(torch.stack(found) for found in rows.values()))

    def explain(self) -> LatentTrace:
        """Go back from all words at once; word t joins at step t."""
        model, size, den = self.model, self.size, self.den
        now = self.state_pass()
        count, width = len(self.asked), len(self.unrectified)
        places = torch.arange(count)
        asked = now.logits[places, self.asked]
        total = now.h2[1:] + now.mixed
        start = model.words.weight[self.asked] * total * (asked / den(asked)).unsqueeze(1)
        start = start / den(total)
        to_h2, to_mixed = now.h2[1:] * start, now.mixed * start

        candidate = slice(2 * size, 3 * size)
        weight1, weight2 = (
            torch.cat([lstm.weight_ih[candidate], lstm.weight_hh[candidate]], 1)
            for lstm in (model.attention_lstm, model.language_lstm)
        )
        carry1, carry2, recurrent = (torch.zeros_like(start) for _ in range(3))
        to_pooled = start.new_zeros(count, width)
        to_words = start.new_zeros(count, count, self.embedded.shape[1])
        to_context = start.new_zeros(count, count, size)
        for j in range(count - 1, -1, -1):
            w = slice(j, count)  # words that have begun
            to_cell, carry2[w] = self._cell(
                carry2[w] + to_h2[w], now.z2[j], now.c2[j + 1], now.c2[j]
            )
            x = torch.cat([now.x2[j], now.h2[j]])
            above = x * ((to_cell / den(now.z2[j, candidate])) @ weight2)
            mixed = above[:, :size].clone()
            mixed[0] += to_mixed[j]
            quotient = mixed / den(now.mixed[j])
            to_sentinel = now.beta[j] * now.sentinel[j] * quotient
            to_context[w, j] = (1 - now.beta[j]) * now.context[j] * quotient
            to_h1 = above[:, size : 2 * size]
            if "h1" in self.fixes:
                to_h1 = to_h1 + recurrent[w]
            to_cell, carry1[w] = self._cell(
                carry1[w] + to_sentinel + to_h1, now.z1[j], now.c1[j + 1], now.c1[j]
            )
            x = torch.cat([now.x1[j], now.h1[j]])
            below = x * ((to_cell / den(now.z1[j, candidate])) @ weight1)
            to_h2[w] = above[:, 2 * size :] + below[:, :size]
            to_pooled[w] += below[:, size : size + width]
            to_words[w, j] = below[:, size + width : -size]
            recurrent[w] = below[:, -size:]
        return self._to_features(now, to_context, to_pooled, to_words)

    def _cell(
        self, relevance: Tensor, z: Tensor, c: Tensor, before: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Split the relevance (W, H) of c = i tanh(z_g) + f c_before to z_g and to c_before."""
        i, f, g, _ = z.chunk(4)
        quotient = relevance / self.den(c)
        return i.sigmoid() * g.tanh() * quotient, f.sigmoid() * before * quotient

    def _to_features(
        self, now: Moments, to_context: Tensor, to_pooled: Tensor, to_words: Tensor
    ) -> LatentTrace:
        """Go on from the contexts of all steps and the global feature to the features."""
        layer = self.model.global_projection
        quotient = to_context / self.den(now.context)
        to_values = torch.einsum("wjh,jk->wkh", quotient, now.alpha) * self.values
        to_average = self.average * ((to_pooled / self.den(self.unrectified)) @ layer.weight)
        averaged = self.projected.relu() if "relu" in self.fixes else self.projected
        share = averaged / len(averaged) / self.den(self.average)
        to_projected = to_values + share * to_average.unsqueeze(1)
        quotient = to_projected / self.den(self.projected)
        features = self.cells * (quotient @ self.model.projection.weight)
        return LatentTrace(
            features, to_values, to_pooled, to_words, now, self.average, self.unrectified
        )
