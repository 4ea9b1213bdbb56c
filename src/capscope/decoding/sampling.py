"""Captions word by word: greedy, drawn at random, or given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from capscope.decoding.hypothesis import Hypothesis, searching
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Memory

Choose = Callable[[Tensor, int], Tensor]
"""(B, K, V) log-probabilities and the step t -> (B, K) word ids."""


class Rollout(NamedTuple):
    """K captions of each of B images, T steps long.

    Attributes
    ----------
    word_ids : Tensor (B, K, T)
        Chosen ids, the end among them; 0 after it.
    log_probs : Tensor (B, K, T)
        The captioner's log-probability of each chosen id; 0 after the end.
    """

    word_ids: Tensor
    log_probs: Tensor


def roll_out(
    captioner: Captioner,
    memory: Memory,
    choose: Choose,
    *,
    start: int,
    end: int,
    steps: int,
    rows: int = 1,
) -> Rollout:
    """Say one word after the other, each chosen by `choose`, until all rows ended or T = `steps`.

    Keeps the captioner's mode and gradients as they are: the caller decides about dropout.
    """
    state = captioner.start(memory, rows)
    batch, device = next(iter(memory.values())).shape[0], next(iter(memory.values())).device
    fed = torch.full((batch, rows), start, device=device)
    word_ids = torch.zeros(batch, rows, steps, dtype=torch.long, device=device)
    log_probs = []
    ended = torch.zeros(batch, rows, dtype=torch.bool, device=device)
    for t in range(steps):
        step = captioner.step(fed, state, memory)
        state = step.state
        chosen = choose(step.log_probs, t).masked_fill(ended, 0)
        spoken = step.log_probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        log_probs.append(spoken.masked_fill(ended, 0.0))
        word_ids[:, :, t] = chosen
        ended = ended | (chosen == end)
        fed = chosen.masked_fill(ended, 0)
        if bool(ended.all()):
            break
    padding = log_probs[0].new_zeros(batch, rows, steps - len(log_probs))
    return Rollout(word_ids, torch.cat([torch.stack(log_probs, -1), padding], -1))


def argmax(log_probs: Tensor, t: int) -> Tensor:
    """Choose the most probable word."""
    return log_probs.argmax(-1)


def given(word_ids: Tensor) -> Choose:
    """Choose what is given: ids (B, K, T), to replay a caption or a draw."""
    return lambda log_probs, t: word_ids[:, :, t]


def drawn(
    generator: torch.Generator | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    nucleus: float | None = None,
    forbidden: Sequence[int] = (),
) -> Choose:
    """Draw from softmax(log p / `temperature`), cut down to the likeliest words if asked.

    Parameters
    ----------
    generator : torch.Generator or None
        Source of randomness; None is torch's global one.
    temperature : float
        Above 1 flattens, below 1 sharpens the distribution.
    top_k : int or None
        Draw among the `top_k` likeliest words only.
    nucleus : float or None
        Draw among the fewest likeliest words whose probabilities sum to at least `nucleus`
        (Holtzman et al. 2020, "The curious case of neural text degeneration").
    forbidden : sequence of int
        Ids that are never drawn.
    """

    def choose(log_probs: Tensor, t: int) -> Tensor:
        logits = forbid(log_probs.detach() / temperature, forbidden)
        if top_k is not None:
            threshold = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
            logits = logits.masked_fill(logits < threshold, -torch.inf)
        if nucleus is not None:
            ordered, order = logits.softmax(-1).sort(-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= nucleus
            logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
        flat = logits.softmax(-1).flatten(0, 1)
        return torch.multinomial(flat, 1, generator=generator).view(logits.shape[:2])

    return choose


def forbid(scores: Tensor, word_ids: Sequence[int]) -> Tensor:
    """Return `scores` (..., V) with minus infinity at `word_ids`."""
    if not word_ids:
        return scores
    return scores.index_fill(-1, torch.tensor(list(word_ids), device=scores.device), -torch.inf)


def greedy_search(
    captioner: Captioner,
    features: Features,
    *,
    start: int,
    end: int,
    max_length: int,
    forbidden: Sequence[int] = (),
) -> list[Hypothesis]:
    """Caption each image by its most probable next word, at most `max_length` words, then end."""

    def choose(log_probs: Tensor, t: int) -> Tensor:
        if t == max_length:
            return log_probs.new_full(log_probs.shape[:2], end, dtype=torch.long)
        return forbid(log_probs, forbidden).argmax(-1)

    with searching(captioner):
        rollout = roll_out(
            captioner,
            captioner.encode(features),
            choose,
            start=start,
            end=end,
            steps=max_length + 1,
        )
    found = []
    rows = zip(rollout.word_ids[:, 0].tolist(), rollout.log_probs[:, 0].tolist(), strict=True)
    for word_ids, log_probs in rows:
        length = word_ids.index(end)
        spoken = tuple(log_probs[: length + 1])
        found.append(Hypothesis(tuple(word_ids[:length]), spoken, True, sum(spoken)))
    return found
