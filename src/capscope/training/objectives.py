"""What training minimises: cross-entropy and the self-critical loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from capscope.features.visual import Features
from capscope.metrics.bleu import bleu
from capscope.metrics.cider import DocumentFrequencies, cider_d
from capscope.models.captioner import Captioner
from capscope.training.batches import CaptionBatch

FIRST_OWN_WORD = 3
"""Scheduled sampling replaces inputs from this position on (0 is the start)."""


def cross_entropy(
    captioner: Captioner,
    features: Features,
    batch: CaptionBatch,
    own_words: Tensor | None = None,
) -> Tensor:
    """Return the mean of -log p over all words of the references and their ends.

    Parameters
    ----------
    own_words : Tensor (B,) bool or None
        Scheduled sampling (Bengio et al. 2015): these references are fed the captioner's own
        most probable word of the step before instead of their own, from the fourth input on.
    """
    if own_words is None or not bool(own_words.any()):
        hidden = captioner.hidden(features, batch.inputs).values[batch.valid]
        return functional.cross_entropy(_logits(captioner, hidden), batch.targets[batch.valid])
    log_probs, _ = scheduled_sampling(captioner, features, batch.inputs, own_words)
    return functional.nll_loss(log_probs[batch.valid], batch.targets[batch.valid])


def _logits(captioner: Captioner, hidden: Tensor) -> Tensor:
    """Return logits (M, V) of M positions (M, H): padding never reaches the output layer."""
    return captioner.readout(hidden.unsqueeze(0)).squeeze(0)


def scheduled_sampling(
    captioner: Captioner, features: Features, inputs: Tensor, own_words: Tensor
) -> tuple[Tensor, Tensor]:
    """Feed references (B, T) word by word, some with the captioner's own words.

    Returns
    -------
    log_probs : Tensor (B, T, V)
    fed : Tensor (B, T)
        The word ids that were fed.
    """
    memory = captioner.encode(features)
    state = captioner.start(memory)
    log_probs: list[Tensor] = []
    fed: list[Tensor] = []
    for t in range(inputs.shape[1]):
        words = inputs[:, t]
        if t >= FIRST_OWN_WORD:
            words = torch.where(own_words, log_probs[-1].detach().argmax(-1), words)
        step = captioner.step(words.unsqueeze(1), state, memory)
        state = step.state
        log_probs.append(step.log_probs[:, 0])
        fed.append(words)
    return torch.stack(log_probs, 1), torch.stack(fed, 1)


def caption_log_probs(
    captioner: Captioner, features: Features, word_ids: Tensor, *, start: int, end: int
) -> Tensor:
    """Return the log-probability (B, T) of each word of given captions, in one pass.

    Parameters
    ----------
    word_ids : Tensor (B, T)
        Captions as `roll_out` draws them: the end among them, 0 after it. Where the end is fed
        on, 0 takes its place, as in `roll_out`.
    """
    fed = word_ids.masked_fill(word_ids == end, 0)[:, :-1]
    inputs = torch.cat([fed.new_full((len(fed), 1), start), fed], 1)
    logits = captioner.readout(captioner.hidden(features, inputs).values)
    return logits.log_softmax(-1).gather(-1, word_ids.unsqueeze(-1)).squeeze(-1)


def self_critical_loss(log_probs: Tensor, word_ids: Tensor, reward: Tensor, *, end: int) -> Tensor:
    """Return the policy-gradient loss of drawn captions (Rennie et al. 2017).

    Parameters
    ----------
    log_probs : Tensor (B, T)
        Of the drawn words, with gradient.
    word_ids : Tensor (B, T)
        Drawn words with the end; 0 after it.
    reward : Tensor (B,)
        Reward of each caption minus its baseline.

    Returns
    -------
    Tensor
        ``-sum(log p * reward) / words``, over all words up to the end with it. As published, the
        word after a drawn padding (id 0) is left out too.
    """
    goes_on = (word_ids != 0) & (word_ids != end)
    counted = torch.cat([torch.ones_like(goes_on[:, :1]), goes_on[:, :-1]], 1).to(log_probs.dtype)
    return -(log_probs * reward.to(log_probs.dtype).unsqueeze(1) * counted).sum() / counted.sum()


def caption_reward(
    word_ids: Tensor,
    baseline: Tensor,
    references: Sequence[Sequence[Sequence[int]]],
    *,
    start: int,
    end: int,
    weights: tuple[float, float] = (1.0, 0.0),
    frequencies: DocumentFrequencies | None = None,
    parity: bool = False,
) -> NDArray[np.float64]:
    """Return how much better drawn captions score than baseline captions, one number each.

    Parameters
    ----------
    word_ids, baseline : Tensor (B, T)
        Drawn and baseline captions with the end; 0 after it.
    references : sequence (B) of sequences of word ids
        Without start and end.
    weights : (float, float)
        Of CIDEr-D and of BLEU-4.
    frequencies : DocumentFrequencies or None
        N-gram frequencies of the training references, counted with the end. None counts them
        over this batch, each image twice, as published.
    parity : bool
        False: the end is a word everywhere, so that breaking off is not rewarded. True
        (published): references have it and captions never do.
    """

    def words(row: list[int]) -> list[int]:
        spoken = [word_id for word_id in row if word_id not in (0, start, end)]
        return spoken if parity or end not in row else [*spoken, end]

    ended = [[[*reference, end] for reference in image] for image in references] * 2
    captions = [words(row) for row in [*word_ids.tolist(), *baseline.tolist()]]
    for_cider, for_bleu = weights
    scores = for_cider * cider_d(ended, captions, frequencies)[1]
    if for_bleu:
        scores = scores + for_bleu * bleu(ended, captions)[1][3]
    return scores[: len(word_ids)] - scores[len(word_ids) :]
