"""What training minimises: cross-entropy and the self-critical loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from capscope.decoding.sampling import Choose, argmax, forbid
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.models.layers.recurrent import over_steps
from capscope.training.batches import CaptionBatch

Per = Literal["word", "caption"]


def cross_entropy(
    captioner: Captioner,
    features: Features,
    batch: CaptionBatch,
    own_words: Tensor | None = None,
    per: Per = "word",
    smoothing: float = 0.0,
    published_mass: bool = False,
    choose: Choose = argmax,
) -> Tensor:
    """Return the mean of -log p over all words of the references and their ends.

    Parameters
    ----------
    per : {"word", "caption"}
        What the sum over all words is divided by: their number, or that of the references (the
        "temporal softmax loss", by which long references weigh more).
    own_words, choose : Tensor (B, T) bool or None, callable
        See `scheduled_sampling`.
    smoothing, published_mass : float, bool
        See `word_loss`.
    """
    if own_words is None or not bool(own_words.any()):
        hidden = captioner.hidden(features, batch.inputs).values[batch.valid]
        log_probs = _logits(captioner, hidden).log_softmax(-1)
    else:
        fed, _ = scheduled_sampling(captioner, features, batch.inputs, own_words, choose)
        log_probs = fed[batch.valid]
    targets = batch.targets[batch.valid]
    return word_loss(log_probs, targets, len(batch.inputs), per, smoothing, published_mass)


def word_loss(
    log_probs: Tensor,
    targets: Tensor,
    captions: int,
    per: Per = "word",
    smoothing: float = 0.0,
    published_mass: bool = False,
) -> Tensor:
    """Return -log p of M words, (M, V) and (M,), summed and divided by M or by `captions`.

    Parameters
    ----------
    smoothing : float
        Label smoothing (Szegedy et al. 2016, section 7): the loss is the divergence from a
        distribution with 1 - `smoothing` at the word and the rest shared by all others.
    published_mass : bool
        As published with the spatial transformer, the rest is divided by V - 2 in place of V - 1,
        so that the distribution sums to more than 1.
    """
    divisor = len(targets) if per == "word" else captions
    found = functional.nll_loss(log_probs, targets, reduction="sum") / divisor
    if smoothing == 0:
        return found
    others = log_probs.shape[-1] - 1
    share = smoothing / (others - published_mass)
    entropy = (1 - smoothing) * math.log(1 - smoothing) + others * share * math.log(share)
    everything = -log_probs.sum() / divisor
    words = len(targets) / divisor
    return (1 - smoothing) * found + share * (everything - found) + words * entropy


def _logits(captioner: Captioner, hidden: Tensor) -> Tensor:
    """Return logits (M, V) of M positions (M, H): padding never reaches the output layer.

    Those of bfloat16 are widened: three digits are not enough for the logarithm of a sum.
    """
    logits = captioner.readout(hidden.unsqueeze(0)).squeeze(0)
    return logits.float() if logits.dtype == torch.bfloat16 else logits


def scheduled_sampling(
    captioner: Captioner,
    features: Features,
    inputs: Tensor,
    own_words: Tensor,
    choose: Choose = argmax,
) -> tuple[Tensor, Tensor]:
    """Feed references (B, T) word by word, some words the captioner's own (Bengio et al. 2015).

    Parameters
    ----------
    own_words : Tensor (B, T) bool
        Where the captioner is fed the word that it says itself after the inputs before, in place
        of the reference's; not at the start.
    choose : callable
        Which word it says: its most probable one, or one that is drawn.

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
    with over_steps(captioner):
        for t in range(inputs.shape[1]):
            words = inputs[:, t]
            if bool(own_words[:, t].any()):
                said = choose(log_probs[-1].detach().unsqueeze(1), t).squeeze(1)
                words = torch.where(own_words[:, t], said, words)
            step = captioner.step(words.unsqueeze(1), state, memory)
            state = step.state
            log_probs.append(step.log_probs[:, 0])
            fed.append(words)
    return torch.stack(log_probs, 1), torch.stack(fed, 1)


def caption_log_probs(
    captioner: Captioner,
    features: Features,
    word_ids: Tensor,
    *,
    start: int,
    end: int,
    forbidden: Sequence[int] = (),
) -> Tensor:
    """Return the log-probability (B, T) of each word of given captions, in one pass.

    Parameters
    ----------
    word_ids : Tensor (B, T)
        Captions as `roll_out` draws them: the end among them, 0 after it. Where the end is fed
        on, 0 takes its place, as in `roll_out`.
    forbidden : sequence of int
        Ids that could not be drawn: the distribution is that of the others.

    Returns
    -------
    Tensor (B, T)
        0 after the end.
    """
    fed = word_ids.masked_fill(word_ids == end, 0)[:, :-1]
    inputs = torch.cat([fed.new_full((len(fed), 1), start), fed], 1)
    ended = word_ids == end
    spoken = ended.cumsum(1) - ended.long() == 0
    longest = int(spoken.sum(1).max())
    hidden = captioner.hidden(features, inputs[:, :longest]).values[spoken[:, :longest]]
    log_probs = forbid(_logits(captioner, hidden), forbidden).log_softmax(-1)
    found = log_probs.gather(-1, word_ids[spoken].unsqueeze(-1)).squeeze(-1)
    return found.new_zeros(word_ids.shape).masked_scatter(spoken, found)


def self_critical_loss(
    log_probs: Tensor,
    word_ids: Tensor,
    reward: Tensor,
    *,
    end: int,
    per: Literal["word", "position"] = "word",
) -> Tensor:
    """Return the policy-gradient loss of drawn captions (Rennie et al. 2017).

    Parameters
    ----------
    log_probs : Tensor (B, T)
        Of the drawn words, with gradient.
    word_ids : Tensor (B, T)
        Drawn words with the end; 0 after it.
    reward : Tensor (B,)
        Reward of each caption minus its baseline.
    per : {"word", "position"}
        ``position``: the sum is divided by B T, however long captions are (Wu et al. 2022).

    Returns
    -------
    Tensor
        ``-sum(log p * reward) / words``, over all words up to the end with it. As published, the
        word after a drawn padding (id 0) is left out too.
    """
    counted = counted_words(word_ids, end=end, per=per)
    weighted = log_probs * reward.to(log_probs).unsqueeze(1) * counted
    return -weighted.sum() / counted.sum()


def counted_words(
    word_ids: Tensor, *, end: int, per: Literal["word", "position"] = "word"
) -> Tensor:
    """Return (B, T) bool: what `self_critical_loss` sums over, and divides by the number of."""
    if per == "position":
        return torch.ones_like(word_ids, dtype=torch.bool)
    goes_on = (word_ids != 0) & (word_ids != end)
    return torch.cat([torch.ones_like(goes_on[:, :1]), goes_on[:, :-1]], 1)
