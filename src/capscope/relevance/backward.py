"""Relevance of every word of every caption of a batch, in one backward pass.

The pass has two stages, so that what all steps share is done once. Stage 1 goes from the logits
of the explained words (gathered, never the vocabulary) through the decoder to the embedded words,
the memory and the attention-weighted sums. Stage 2 spreads the sums of all steps over the memory
in one product, and goes from the memory through the encoder to the visual features. In both, the
T words are a batch dimension (`torch.vmap`) in front of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.relevance.operations import (
    columns_of,
    relevance_mode,
    split_heads,
    weighting_ratio,
)
from capscope.relevance.record import Pass
from capscope.relevance.rules import Rules

if TYPE_CHECKING:
    from capscope.models.captioner import Captioner

STAGE_2_NUMBERS = 1 << 23
"""Multipliers of visual features that stage 2 holds at once; more words go in portions."""


class WordRelevance(NamedTuple):
    """Relevance for T words of B captions: signed, in units of logits."""

    features: Tensor
    """(B, T, N, D) of every channel of every visual feature, for word t, or (B, T, N, 1)."""
    words: Tensor
    """(B, T, T) of input word i for word t; 0 where i > t."""
    logits: Tensor
    """(B, T) the explained logits: the relevance that each word starts with."""
    absorbed: Tensor
    """(B, T) what biases, stabilisers and cuts took: logit - features - words."""
    attention: Tensor | None
    """(B, T, N) or (B, T, heads, N) attention weights of the same pass."""


class Multipliers(NamedTuple):
    """What relevance is a multiple of, for T words of B captions; by derivatives: gradients."""

    cells: Tensor
    """(B, T, N, D) of the visual features; (B, T, 1, D) if summed over them."""
    words: Tensor
    """(B, T, T, E) of the embedded input i for word t."""
    embedded: Tensor
    """(B, T, E) the embedded inputs."""
    logits: Tensor
    """(B, T) the explained logits."""
    attention: Tensor | None
    """(B, T, N) or (B, T, heads, N) attention weights of the same pass."""


def word_relevance(
    captioner: Captioner,
    features: Features,
    word_ids: Tensor,
    rules: Rules,
    *,
    channels: bool = True,
) -> WordRelevance:
    """Explain the logit of every word but the first, by `rules`, in evaluation mode.

    Parameters
    ----------
    captioner : Captioner
        Written in relevance operations.
    features : Features
        Of B images.
    word_ids : Tensor (B, T + 1)
        Captions from the start token on. Word t is `word_ids[:, t + 1]`; the inputs up to t
        predict it. What stands after a caption's end is explained like any word.
    rules : Rules
        If `Rules.times_input` is False, `features` and `words` are multipliers (derivatives;
        `words` their sum over the embedding) and `absorbed` has no meaning.
    channels : bool
        False gives the sum over the channels of a visual feature, which saves the way down to them;
        with `Rules.times_input` only.
    """
    channels = channels or not rules.times_input
    found = word_multipliers(captioner, features, word_ids, rules, channels=channels)
    relevance, words = found.cells, found.words
    if rules.times_input:
        if channels:
            relevance.mul_(features.cells.detach().unsqueeze(1))
        words = words * found.embedded.unsqueeze(1)
    words = words.sum(-1)
    absorbed = found.logits - relevance.sum((2, 3)) - words.sum(2)
    return WordRelevance(relevance, words, found.logits, absorbed, found.attention)


def word_multipliers(
    captioner: Captioner,
    features: Features,
    word_ids: Tensor,
    rules: Rules,
    *,
    summed: bool = False,
    channels: bool = True,
) -> Multipliers:
    """Return what `word_relevance` multiplies inputs with, or sums up for gradients.

    With `summed`, multipliers of the visual features come summed over them; the sum is taken before
    the projection, which saves a product of all features for every word. Without `channels`, each
    feature has one multiplier, of its amount: (B, T, N, 1), the relevance of all its channels.
    """
    inputs, explained = word_ids[:, :-1], word_ids[:, 1:]
    cells = features.cells.detach()
    leaf = cells
    if summed:
        leaf = cells.new_zeros(len(cells), 1, cells.shape[2])
    elif not channels:
        leaf = cells.new_zeros(*cells.shape[:2], 1)
    leaf.requires_grad_()
    if summed:
        cells = cells + leaf
    elif not channels:
        cells = cells + cells * leaf
    training = captioner.training
    captioner.eval()
    try:
        with relevance_mode(rules) as record:
            if summed:
                record.cells, record.shift = cells, leaf
            elif not channels:
                record.cells, record.amount = cells, leaf
            hidden = captioner.hidden(features._replace(cells=cells), inputs)
            logits = captioner.readout(hidden.values, explained)
    finally:
        captioner.train(training)

    embedded = torch.cat(record.words, 1)
    to_words, to_memory = _decoder_stage(record, logits)
    to_cells = _encoder_stage(record, leaf, to_memory, features.cells.numel())
    attention = None if hidden.attention is None else hidden.attention.detach()
    return Multipliers(
        to_cells.transpose(0, 1),
        to_words.transpose(0, 1),
        embedded.detach(),
        logits.detach(),
        attention,
    )


def _decoder_stage(record: Pass, logits: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return multipliers of embedded words (T, B, T, E) and of each memory tensor (T, B, ...)."""
    batch, steps = logits.shape
    seeds = torch.eye(steps, dtype=logits.dtype, device=logits.device)
    seeds = seeds.unsqueeze(1).expand(steps, batch, steps)
    leaves = [leaf for _, leaf in record.borders]
    results = [context.result for context in record.contexts]
    copies = [copy.leaves for copy in record.copies]
    pulled = iter(_pull([logits], [*record.words, *results, *copies, *leaves], [seeds]))
    words = [_or_zeros(next(pulled), embedded, steps) for embedded in record.words]
    arrived = [next(pulled) for _ in results]
    fed = [next(pulled) for _ in copies]
    memory = []
    for leaf, direct in zip(leaves, pulled, strict=True):
        parts = [direct, _spread(record, leaf, arrived), _kept(record, leaf, fed)]
        found = [part for part in parts if part is not None]
        memory.append(_or_zeros(sum(found[1:], found[0]) if found else None, leaf, steps))
    return torch.cat(words, 2), memory


def _spread(record: Pass, values: Tensor, arrived: Sequence[Tensor | None]) -> Tensor | None:
    """Spread the multipliers of all attention-weighted sums of `values` over them: (T, B, N, H)."""
    pairs = [
        (context, multiplier)
        for context, multiplier in zip(record.contexts, arrived, strict=True)
        if context.values is values and multiplier is not None
    ]
    if not pairs:
        return None
    multiplier = torch.cat([multiplier for _, multiplier in pairs], 2)
    result = torch.cat([context.result for context, _ in pairs], 1).detach()
    weights = torch.cat([context.weights for context, _ in pairs], 1)
    ratio = weighting_ratio(result, "context", record.rules)
    if ratio is not None:
        multiplier = multiplier * ratio
    if weights.dim() == 3:
        return weights.transpose(1, 2) @ multiplier
    if record.rules.head is not None:
        multiplier = multiplier * columns_of(result, weights, record.rules.head)
    heads = split_heads(multiplier, weights.shape[2]).transpose(2, 3)
    return (weights.permute(0, 2, 3, 1) @ heads).transpose(2, 3).flatten(3)


def _kept(record: Pass, source: Tensor, fed: Sequence[Tensor | None]) -> Tensor | None:
    """Return the multiplier (T, B, 1, X) of a tensor of which one step's copy counts."""
    for copy, multiplier in zip(record.copies, fed, strict=True):
        if copy.source is source and multiplier is not None:
            if copy.kept == "first":
                return multiplier[:, :, :1]
            return multiplier.diagonal(dim1=0, dim2=2).permute(2, 0, 1).unsqueeze(2)
    return None


def _encoder_stage(record: Pass, leaf: Tensor, memory: Sequence[Tensor], numbers: int) -> Tensor:
    """Return multipliers of the visual features (T, B, N, D), `numbers` a word, or of their sum."""
    origins = [origin for origin, _ in record.borders]
    portion = max(1, STAGE_2_NUMBERS // numbers)
    (multiplier,) = _pull(origins, [leaf], memory, portion)
    found = _or_zeros(multiplier, leaf, memory[0].shape[0])
    return found.contiguous()  # that of a mean is expanded; callers multiply in place


def _pull(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    multipliers: Sequence[Tensor],
    portion: int | None = None,
) -> list[Tensor | None]:
    """Pull T multipliers of each output (T, ...) back to the inputs; None where none arrives.

    `torch.vmap` and not ``is_grads_batched``: the latter loops over T in matrix products.
    """
    reached: list[bool] = []

    def pull(*one_word: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(outputs, inputs, one_word, retain_graph=True, allow_unused=True)
        reached[:] = [gradient is not None for gradient in found]
        return tuple(gradient for gradient in found if gradient is not None)

    if portion is not None and portion >= len(multipliers[0]):
        portion = None  # vmap would copy the results of a single portion, too
    found = iter(torch.vmap(pull, chunk_size=portion)(*multipliers))
    return [next(found) if yes else None for yes in reached]


def _or_zeros(multiplier: Tensor | None, like: Tensor, steps: int) -> Tensor:
    return like.new_zeros(steps, *like.shape) if multiplier is None else multiplier
