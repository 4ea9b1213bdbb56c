"""The alpha-beta rules of DIFNet's explainer in closed form, for many words at once.

Relevance is carried itself, not as a multiplier, because one rule (sums) couples all positions of
a word's relevance. Rows that can have relevance for a word are listed, so that nothing is computed
for the others: of a decoder's last layer only one row counts for each word.

Sources: Montavon et al. 2017 (alpha-beta), Chefer et al. 2021 (sums and matrix products),
Wu et al. 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from capscope.relevance.product import product

TINY = 1e-9
"""What divisors are kept from 0 by."""
Over = Literal["sample", "batch"]


@dataclass(frozen=True)
class AlphaBeta:
    """Options of the rules.

    Attributes
    ----------
    alpha : float
        Linear layers share out alpha times what excites, minus alpha - 1 times what inhibits.
    over : {"sample", "batch"}
        What sums normalise over: a word of one caption; or, as published, that word of all
        captions of a batch together, so that what is explained depends on its neighbours.
    exact : torch.dtype
        Of the forward pass. In float32 the rounding of small divisors is off by some per cent.
    carried : torch.dtype
        Of the relevance.
    """

    alpha: float = 1.0
    over: Over = "sample"
    exact: torch.dtype = torch.float64
    carried: torch.dtype = torch.float32


def inverse(z: Tensor) -> Tensor:
    """Return 1 / (z + 1e-9), or 0 where z is exactly 0."""
    den = z + TINY
    den = torch.where(den == 0, TINY, den)
    return torch.where(z == 0, 0.0, 1 / den)


class Rows:
    """Which rows of a tensor (B, n, H) have relevance for which of K words: P pairs, in order.

    Parameters
    ----------
    word, row : Tensor (P,)
    words, count : int
        K and n.
    """

    def __init__(self, word: Tensor, row: Tensor, words: int, count: int) -> None:
        self.word, self.row, self.words, self.count = word, row, words, count
        self.full = len(word) == words * count
        self.single = len(word) == words and bool((word == torch.arange(words)).all())

    @classmethod
    def own(cls, words: int) -> Rows:
        """Return row k for word k."""
        place = torch.arange(words)
        return cls(place, place, words, words)

    @classmethod
    def before(cls, words: int) -> Rows:
        """Return rows 0 to k for word k."""
        word, row = torch.tril_indices(words, words)
        return cls(word, row, words, words)

    @classmethod
    def all(cls, words: int, count: int) -> Rows:
        """Return all rows for every word."""
        word = torch.arange(words).repeat_interleave(count)
        return cls(word, torch.arange(count).repeat(words), words, count)

    def times(self, r: Tensor, factor: Tensor) -> Tensor:
        """Return r (B, P, H) times the rows of `factor` (B, n, H)."""
        if self.full:
            return (self.apart(r) * factor.unsqueeze(1)).flatten(1, 2)
        return r * factor[:, self.row]

    def apart(self, r: Tensor) -> Tensor:
        """Return r (B, P, ...) as (B, K, n, ...), if all rows are listed."""
        return r.reshape(len(r), self.words, self.count, *r.shape[2:])

    def dense(self, r: Tensor) -> Tensor:
        """Return r (B, P, ...) as (B, K, n, ...), 0 where nothing is listed."""
        if self.full:
            return self.apart(r)
        found = r.new_zeros(len(r), self.words, self.count, *r.shape[2:])
        found[:, self.word, self.row] = r
        return found

    def listed(self, dense: Tensor) -> Tensor:
        """Return (B, K, n, ...) as (B, P, ...)."""
        return dense.flatten(1, 2) if self.full else dense[:, self.word, self.row]

    def sums(self, r: Tensor) -> Tensor:
        """Return the sum of r (B, P, H) for each word, (B, K), in double precision."""
        each = r.sum(-1).double()
        return each.new_zeros(len(r), self.words).index_add_(1, self.word, each)

    def scaled(self, r: Tensor, factor: Tensor) -> Tensor:
        """Return r (B, P, H) times the `factor` (B, K) of each word."""
        return r * factor.to(r.dtype)[:, self.word].unsqueeze(-1)


class Matrix:
    """The weight of a linear layer, as the forward pass and the rules need it."""

    def __init__(self, layer: nn.Linear, rules: AlphaBeta) -> None:
        self.rules = rules
        self.carried = layer.weight.detach().to(rules.carried)
        self.weight = layer.weight.detach().to(rules.exact)
        self.bias = None if layer.bias is None else layer.bias.detach().to(rules.exact)

    @cached_property
    def absolute(self) -> Tensor:
        """|W| (O, I)."""
        return self.carried.abs()

    @cached_property
    def positive(self) -> Tensor:
        """W+ (O, I)."""
        return self.carried.clamp(min=0)

    @cached_property
    def positive_back(self) -> Tensor:
        """W+ (I, O), for the way back."""
        return self.positive.t().contiguous()

    @cached_property
    def pair_back(self) -> Tensor:
        """[W, |W|] (2 I, O), for the way back."""
        return torch.cat([self.carried.t(), self.absolute.t()])

    def __call__(self, x: Tensor, nonnegative: bool = False) -> LinearPass:
        """Apply the layer to x (B, n, I), and remember what its rule needs."""
        return LinearPass(self, x, nonnegative)


class LinearPass:
    """A linear layer's forward pass, and its way back.

    With x+ and x- the positive and negative part, and likewise W, the products that excite are
    x+ W+ and x- W-: together (x W + |x| |W|) / 2, which needs no parts. They share out relevance by
    their sum Z; bias takes none. Those that inhibit are (x W - |x| |W|) / 2, with their own sum.
    """

    def __init__(self, matrix: Matrix, x: Tensor, nonnegative: bool) -> None:
        self.matrix = matrix
        self.positive = nonnegative and matrix.rules.alpha == 1
        self.product = x @ matrix.weight.t()
        self.y = self.product if matrix.bias is None else self.product + matrix.bias
        self.x = x.to(matrix.rules.carried)

    @cached_property
    def sizes(self) -> Tensor:
        """The sums |x| |W| of products' absolute values."""
        return product(self.x.abs(), self.matrix.absolute)

    @cached_property
    def exciting(self) -> Tensor:
        """One over the sums of the products that excite."""
        if self.positive:
            return inverse(product(self.x, self.matrix.positive))
        return inverse((self.product.to(self.x.dtype) + self.sizes) / 2)

    @cached_property
    def inhibiting(self) -> Tensor:
        """One over the sums of the products that inhibit."""
        return inverse((self.product.to(self.x.dtype) - self.sizes) / 2)

    @cached_property
    def halves(self) -> tuple[Tensor, Tensor]:
        """x / 2 and |x| / 2."""
        return self.x / 2, self.x.abs() / 2

    def back(self, r: Tensor, rows: Rows) -> Tensor:
        """Return the relevance (B, P, I) of the input, from that of the output (B, P, O)."""
        shared = rows.times(r, self.exciting)
        if self.positive:
            return rows.times(product(shared, self.matrix.positive_back), self.x)
        found = self._products(shared, rows, 1)
        alpha = self.matrix.rules.alpha
        if alpha == 1:
            return found
        against = self._products(rows.times(r, self.inhibiting), rows, -1)
        return alpha * found - (alpha - 1) * against

    def _products(self, shared: Tensor, rows: Rows, sign: int) -> Tensor:
        plain, absolute = product(shared, self.matrix.pair_back).chunk(2, -1)
        return rows.times(plain, self.halves[0]) + sign * rows.times(absolute, self.halves[1])


def add(
    terms: tuple[Tensor, ...], r: Tensor, rows: Rows, over: Over = "sample"
) -> tuple[Tensor, ...]:
    """Return the relevance (B, P, H) of each term (B, n, H) of a sum, from that of the sum.

    Each term first gets its share r_i = x_i R / Z of every entry. Then all shares of a term are
    scaled alike, so that the terms' totals are to each other as the absolute values of their totals
    before, and all have the sign of R's. This is homogeneous in R, but not additive: the words of a
    caption must not share one R.
    """
    inverted = inverse(sum(terms[1:], terms[0]))
    shares = [rows.times(r, (term * inverted).to(r.dtype)) for term in terms]

    def total(x: Tensor) -> Tensor:
        found = rows.sums(x)
        return found if over == "sample" else found.sum(0, keepdim=True).expand_as(found)

    totals = [total(share) for share in shares]
    whole = total(r) * inverse(sum((one.abs() for one in totals[1:]), totals[0].abs()))
    return tuple(
        rows.scaled(share, one.abs() * whole * inverse(one))
        for share, one in zip(shares, totals, strict=True)
    )


def clone(x: Tensor, r: Tensor, rows: Rows) -> Tensor:
    """Return the relevance of x (B, n, H), from the sum (B, P, H) of that of all its uses.

    It is lost where x is exactly 0.
    """
    return rows.times(r, (x * inverse(x)).to(r.dtype))


def by_head(x: Tensor, heads: int) -> Tensor:
    """Return x (B, n, H) as (B, heads, n, H / heads)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


class Attended(NamedTuple):
    """Relevance of what attention reads."""

    query: Tensor
    """(B, P, H) of the rows that attended."""
    keys: Tensor
    """(B, K, N, H)."""
    values: Tensor
    """(B, K, N, H)."""
    weights: Tensor
    """(B, heads, P, N) of the attention weights, which passes on to queries and keys."""


class AttentionPass:
    """Scaled dot-product attention of several heads, and its way back.

    In both matrix products, each factor gets its share of every product by the epsilon rule, and
    then half of it. The softmax, its scaling and masks let relevance pass as it is.

    Parameters
    ----------
    query, keys, values : Tensor (B, n, H), (B, N, H), (B, N, H)
    heads : int
    hidden : Tensor (B, n or 1, N) bool or None
        What is not attended to.
    carried : torch.dtype
    """

    def __init__(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        heads: int,
        hidden: Tensor | None,
        carried: torch.dtype,
    ) -> None:
        q, k, v = (by_head(x, heads) for x in (query, keys, values))
        products = q @ k.transpose(2, 3)
        scores = products / q.shape[-1] ** 0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        if hidden is not None:
            weights = weights.masked_fill(hidden.unsqueeze(1), 0.0)
        sums = (weights @ v).transpose(1, 2).flatten(2)
        self.sums, self.heads = sums, heads
        self.q, self.k, self.v = (x.to(carried) for x in (q, k, v))
        self.weights = weights.to(carried)
        self.by_sums = inverse(sums).to(carried)
        self.by_products = inverse(products).to(carried)

    def back(self, r: Tensor, rows: Rows) -> Attended:
        """Return the relevance of queries, keys and values from that (B, P, H) of the sums."""
        shared = by_head(rows.times(r, self.by_sums), self.heads)
        weights = self._of(self.weights, rows)
        to_weights = weights * (shared @ self.v.transpose(2, 3)) / 2
        scores = to_weights * self._of(self.by_products, rows)
        query = self._of(self.q, rows) * (scores @ self.k) / 2
        if rows.single:
            values = weights.unsqueeze(-1) * shared.unsqueeze(-2)
            keys = scores.unsqueeze(-1) * self._of(self.q, rows).unsqueeze(-2)
        else:
            spread = rows.dense(shared.transpose(1, 2)).permute(0, 3, 2, 1, 4)  # (B, h, n, K, d)
            values = self.weights.transpose(2, 3) @ spread.flatten(3)
            values = values.view(*values.shape[:3], *spread.shape[3:]).transpose(2, 3)
            across = rows.dense(scores.transpose(1, 2)).permute(0, 3, 1, 4, 2)  # (B, h, K, N, n)
            keys = (across.flatten(2, 3) @ self.q).view(*across.shape[:4], -1)
        return Attended(
            query.transpose(1, 2).flatten(2),
            self._merged(keys * self.k.unsqueeze(2)),
            self._merged(values * self.v.unsqueeze(2)),
            to_weights,
        )

    def _of(self, x: Tensor, rows: Rows) -> Tensor:
        """Return the listed rows (B, heads, P, d) of x (B, heads, n, d)."""
        return x[:, :, rows.row]

    def _merged(self, x: Tensor) -> Tensor:
        """Return half of x (B, heads, K, N, d) as (B, K, N, H)."""
        return (x / 2).permute(0, 2, 3, 1, 4).flatten(3)
