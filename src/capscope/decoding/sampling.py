"""Captions word by word: greedy, drawn at random, or given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from capscope.decoding.hypothesis import Hypothesis, searching
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Memory


class NotFiniteError(CapscopeError):
    """Nothing can be drawn from what the captioner says."""


Feed = Literal["words", "start"]
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
    forbidden: Sequence[int] = (),
    feed: Feed = "words",
    stop: bool = True,
) -> Rollout:
    """Say one word after the other, each chosen by `choose`, until all rows ended or T = `steps`.

    Keeps the captioner's mode and gradients as they are: the caller decides about dropout. Ids
    that are `forbidden` are never said; probabilities are those among the others.

    Parameters
    ----------
    feed : {"words", "start"}
        What the captioner is fed after the first step: the word before, or `start` again (an error
        of the published sampling of the recurrent family).
    stop : bool
        False goes on after the end, which is fed like any word (published).
    """
    state = captioner.start(memory, rows)
    batch, device = next(iter(memory.values())).shape[0], next(iter(memory.values())).device
    fed = torch.full((batch, rows), start, device=device)
    word_ids = torch.zeros(batch, rows, steps, dtype=torch.long, device=device)
    log_probs = []
    ended = torch.zeros(batch, rows, dtype=torch.bool, device=device)
    for t in range(steps):
        step = captioner.step(fed, state, memory)
        state, known = step.state, step.log_probs
        if forbidden:
            known = forbid(known, forbidden).log_softmax(-1)
        chosen = choose(known, t)
        if stop:
            chosen = chosen.masked_fill(ended, 0)
        spoken = known.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        log_probs.append(spoken.masked_fill(ended, 0.0))
        word_ids[:, :, t] = chosen
        if stop:
            ended = ended | (chosen == end)
        if feed == "words":
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
    temperature, top_k, nucleus, forbidden
        As `probabilities` takes them.

    Raises
    ------
    NotFiniteError
        When drawing from a captioner that has diverged, or that saw features with NaN.
    """

    def choose(log_probs: Tensor, t: int) -> Tensor:
        flat = probabilities(log_probs, temperature, top_k, nucleus, forbidden).flatten(0, 1)
        return torch.multinomial(flat, 1, generator=generator).view(log_probs.shape[:2])

    return choose


def drawn_at(
    uniform: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    nucleus: float | None = None,
    forbidden: Sequence[int] = (),
) -> Choose:
    """Draw as `drawn` does, with given random numbers: the same ones draw the same words.

    Parameters
    ----------
    uniform : Tensor (B, K, T)
        Numbers from [0, 1): word t of a row is the one at which the distribution function,
        summed in the order of the word ids, first exceeds number t.
    """

    def choose(log_probs: Tensor, t: int) -> Tensor:
        share = probabilities(log_probs, temperature, top_k, nucleus, forbidden)
        total = share.double().cumsum(-1)
        threshold = uniform[:, :, t, None].to(total) * total[..., -1:]
        return torch.searchsorted(total, threshold, right=True).squeeze(-1)

    return choose


def probabilities(
    log_probs: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    nucleus: float | None = None,
    forbidden: Sequence[int] = (),
) -> Tensor:
    """Return the distribution (..., V) that words are drawn from.

    Parameters
    ----------
    log_probs : Tensor (..., V)
    temperature : float
        Above 1 flattens, below 1 sharpens the distribution.
    top_k : int or None
        Keep the `top_k` likeliest words only.
    nucleus : float or None
        Keep the fewest likeliest words whose probabilities sum to at least `nucleus`
        (Holtzman et al. 2020, "The curious case of neural text degeneration").
    forbidden : sequence of int
        Ids that are never drawn.
    """
    logits = forbid(log_probs.detach() / temperature, forbidden)
    if top_k is not None:
        threshold = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if nucleus is not None:
        ordered, order = logits.softmax(-1).sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= nucleus
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    share = logits.softmax(-1)
    if not bool(share.isfinite().all()):
        raise NotFiniteError(
            "the captioner's probabilities are not finite: check its weights and the features "
            "for NaN"
        )
    return share


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
    feed: Feed = "words",
) -> list[Hypothesis]:
    """Caption each image by its most probable next word, at most `max_length` words, then end.

    `feed` as in `roll_out`.
    """

    def likeliest(log_probs: Tensor, t: int) -> Tensor:
        return forbid(log_probs, forbidden).argmax(-1)

    found = _spoken(captioner, features, likeliest, 1, start, end, max_length, feed)
    return [hypotheses[0] for hypotheses in found]


def sample_search(
    captioner: Captioner,
    features: Features,
    *,
    start: int,
    end: int,
    max_length: int,
    uniform: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    nucleus: float | None = None,
    forbidden: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """Draw K captions of each image, of at most `max_length` words, then end.

    Parameters
    ----------
    uniform : Tensor (B, K, `max_length`)
        Random numbers for `drawn_at`. With numbers of its own for each image, a caption does not
        depend on what else is in the batch.
    temperature, top_k, nucleus, forbidden
        As `probabilities` takes them.

    Returns
    -------
    list of list of Hypothesis
        For each image its captions as drawn; log-probabilities are the captioner's own.
    """
    choose = drawn_at(
        uniform, temperature=temperature, top_k=top_k, nucleus=nucleus, forbidden=forbidden
    )
    return _spoken(captioner, features, choose, uniform.shape[1], start, end, max_length)


def _spoken(
    captioner: Captioner,
    features: Features,
    choose: Choose,
    rows: int,
    start: int,
    end: int,
    max_length: int,
    feed: Feed = "words",
) -> list[list[Hypothesis]]:
    """Roll out `rows` captions of each image; one of `max_length` words can only end."""

    def bounded(log_probs: Tensor, t: int) -> Tensor:
        if t == max_length:
            return log_probs.new_full(log_probs.shape[:2], end, dtype=torch.long)
        return choose(log_probs, t)

    with searching(captioner):
        memory = captioner.encode(features)
        rollout = roll_out(
            captioner,
            memory,
            bounded,
            start=start,
            end=end,
            steps=max_length + 1,
            rows=rows,
            feed=feed,
        )
    found = []
    for word_ids, log_probs in zip(
        rollout.word_ids.tolist(), rollout.log_probs.tolist(), strict=True
    ):
        hypotheses = []
        for words, spoken in zip(word_ids, log_probs, strict=True):
            length = words.index(end)
            said = tuple(spoken[: length + 1])
            hypotheses.append(Hypothesis(tuple(words[:length]), said, True, sum(said)))
        found.append(hypotheses)
    return found
