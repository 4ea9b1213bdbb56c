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
from capscope.relevance.operations import Pass, relevance_mode, weighting_ratio
from capscope.relevance.rules import Rules

if TYPE_CHECKING:
    from capscope.models.captioner import Captioner

STAGE_2_NUMBERS = 1 << 23
"""Multipliers of visual features that stage 2 holds at once; more words go in portions."""


class WordRelevance(NamedTuple):
    """Relevance for T words of B captions: signed, in units of logits."""

    features: Tensor
    """(B, T, N, D) of every channel of every visual feature, for word t."""
    words: Tensor
    """(B, T, T) of input word i for word t; 0 where i > t."""
    logits: Tensor
    """(B, T) the explained logits: the relevance that each word starts with."""
    absorbed: Tensor
    """(B, T) what biases, stabilisers and cuts took: logit - features - words."""
    attention: Tensor | None
    """(B, T, N) or (B, T, heads, N) attention weights of the same pass."""


def word_relevance(
    captioner: Captioner, features: Features, word_ids: Tensor, rules: Rules
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
    """
    inputs, explained = word_ids[:, :-1], word_ids[:, 1:]
    cells = features.cells.detach().requires_grad_()
    training = captioner.training
    captioner.eval()
    try:
        with relevance_mode(rules) as record:
            hidden = captioner.hidden(features._replace(cells=cells), inputs)
            logits = captioner.readout(hidden.values, explained)
    finally:
        captioner.train(training)

    embedded = torch.cat(record.words, 1)
    to_words, to_memory = _decoder_stage(record, logits)
    to_cells = _encoder_stage(record, cells, to_memory)
    if rules.times_input:
        to_words = to_words * embedded.detach()
        to_cells.mul_(cells.detach())
    words = to_words.sum(-1).transpose(0, 1)
    relevance = to_cells.transpose(0, 1)
    logits = logits.detach()
    absorbed = logits - relevance.sum((2, 3)) - words.sum(2)
    attention = None if hidden.attention is None else hidden.attention.detach()
    return WordRelevance(relevance, words, logits, absorbed, attention)


def _decoder_stage(record: Pass, logits: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return multipliers of embedded words (T, B, T, E) and of each memory tensor (T, B, ...)."""
    batch, steps = logits.shape
    seeds = torch.eye(steps, dtype=logits.dtype, device=logits.device)
    seeds = seeds.unsqueeze(1).expand(steps, batch, steps)
    leaves = [leaf for _, leaf in record.borders]
    results = [context.result for context in record.contexts]
    multipliers = _pull([logits], [*record.words, *results, *leaves], [seeds])
    first, last = len(record.words), len(record.words) + len(results)
    words = [
        _or_zeros(multiplier, embedded, steps)
        for multiplier, embedded in zip(multipliers[:first], record.words, strict=True)
    ]
    arrived = multipliers[first:last]
    memory = []
    for leaf, direct in zip(leaves, multipliers[last:], strict=True):
        spread = _spread(record, leaf, arrived)
        if spread is not None and direct is not None:
            spread = spread + direct
        memory.append(_or_zeros(direct if spread is None else spread, leaf, steps))
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
    return weights.transpose(1, 2) @ (multiplier if ratio is None else multiplier * ratio)


def _encoder_stage(record: Pass, cells: Tensor, memory: Sequence[Tensor]) -> Tensor:
    """Return multipliers of the visual features (T, B, N, D) from those of the memory."""
    origins = [origin for origin, _ in record.borders]
    portion = max(1, STAGE_2_NUMBERS // cells.numel())
    (multiplier,) = _pull(origins, [cells], memory, portion)
    return _or_zeros(multiplier, cells, memory[0].shape[0])


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

    found = iter(torch.vmap(pull, chunk_size=portion)(*multipliers))
    return [next(found) if yes else None for yes in reached]


def _or_zeros(multiplier: Tensor | None, like: Tensor, steps: int) -> Tensor:
    return like.new_zeros(steps, *like.shape) if multiplier is None else multiplier
