"""LRP-inference weights: what fine-tuning multiplies the predictor's inputs with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from capscope.relevance.operations import denominator

if TYPE_CHECKING:
    from capscope.models.captioner import SumCaptioner, Summands


def normalise_relevance(relevance: Tensor, temperature: float = 1.0) -> Tensor:
    """Return relevance / max|relevance| over the last axis, scaled and shifted around 1.

    X t + 1 for a temperature t up to 1, X t + t above; an all-zero vector counts as X = 0.
    """
    largest = relevance.abs().amax(-1, keepdim=True)
    scaled = relevance / torch.where(largest == 0, 1.0, largest)
    return scaled * temperature + max(1.0, temperature)


@torch.no_grad()
def inference_weights(
    hidden: Tensor,
    context: Tensor,
    readout: nn.Linear,
    logits: Tensor,
    neutral: Tensor,
    epsilon: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Return the weights of `hidden` and `context`, from the relevance of the predicted word.

    The relevance of the predictor's input u = hidden + context for the most probable word k is
    u W_k l_k / den(l_k), split among the two terms. All positive factors cancel in the
    normalisation, so the weights are 1 + normalised(h W_k u / den(u)), and likewise for the
    context: in [0, 2], 1 where the word is neutral or its logit is 0.

    Parameters
    ----------
    hidden, context : Tensor (..., H)
    readout : nn.Linear
        H -> V.
    logits : Tensor (..., V)
        ``readout(hidden + context)``.
    neutral : Tensor (V,) bool
        Words that change nothing: stop words and special tokens.

    Source: Sun et al. 2022; the published program computes the same with a V x V matrix.
    """
    top, word = logits.max(-1)
    total = hidden + context
    common = readout.weight[word] * total / denominator(total, epsilon)
    silent = (neutral[word] | (top == 0)).unsqueeze(-1)
    weights = [
        torch.where(silent, 1.0, normalise_relevance(common * term)) for term in (hidden, context)
    ]
    return weights[0], weights[1]


class Reweighted(NamedTuple):
    """A step or a pass of LRP-inference fine-tuning."""

    logits: Tensor
    """(B, T, V) of the captioner as it is."""
    weighted: Tensor
    """(B, T, V) from the weighted summands; gradient flows through them, not the weights."""
    hidden: Tensor
    """(B, T, H) weights of the hidden state, in [0, 2]."""
    context: Tensor
    """(B, T, H) weights of the context."""


def reweight(captioner: SumCaptioner, summands: Summands, neutral: Tensor) -> Reweighted:
    """Weight the summands by their relevance for the word that the captioner would say.

    Parameters
    ----------
    captioner : SumCaptioner
        From `capscope.models.captioner.with_summands`.
    summands : Summands
        From its `summands` (teacher forcing) or `step_summands` (decoding).
    neutral : Tensor (V,) bool
        Words that change nothing: stop words and special tokens.
    """
    hidden, context = summands
    logits = captioner.predict(hidden + context)
    for_hidden, for_context = inference_weights(hidden, context, captioner.words, logits, neutral)
    weighted = captioner.predict(for_hidden * hidden + for_context * context)
    return Reweighted(logits, weighted, for_hidden, for_context)
