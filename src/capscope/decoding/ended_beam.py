"""Beam search in which ended hypotheses keep their place (Cornia et al. 2020; Wu et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from capscope.decoding.hypothesis import Hypothesis, searching
from capscope.decoding.sampling import forbid
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, select_rows


class EndedBeams(NamedTuple):
    """The K best captions of each of B images, best first."""

    word_ids: Tensor
    """(B, K, T) with the end; `filler` behind it."""
    log_probs: Tensor
    """(B, K, T) of each word and the end; 0 behind it."""
    scores: Tensor
    """(B, K) their sums."""

    def hypotheses(self, end: int) -> list[list[Hypothesis]]:
        """Return them as other searches do: without the end."""
        found = []
        for rows in zip(
            self.word_ids.tolist(), self.log_probs.tolist(), self.scores.tolist(), strict=True
        ):
            ranked = []
            for ids, spoken, score in zip(*rows, strict=True):
                ended = end in ids
                length = ids.index(end) if ended else len(ids)
                ranked.append(
                    Hypothesis(
                        tuple(ids[:length]), tuple(spoken[: length + ended]), ended, float(score)
                    )
                )
            found.append(ranked)
        return found


def ended_beam_search(
    captioner: Captioner,
    features: Features,
    *,
    start: int,
    end: int,
    beam: int,
    steps: int,
    filler: int = 0,
    forbidden: Sequence[int] = (),
    stop: bool = True,
    observe: Callable[[Tensor], None] | None = None,
) -> EndedBeams:
    """Keep the `beam` best hypotheses, ended or not, for `steps` words with the end.

    An ended hypothesis is one candidate, with the score that it has; it goes when `beam` others
    are better. Captions are ranked by the sum of log-probabilities and may break off at `steps`.

    Parameters
    ----------
    captioner : Captioner
    features : Features
        Of B images.
    start, end : int
        Word ids.
    beam, steps : int
        K and T.
    filler : int
        Word id behind the end.
    forbidden : sequence of int
        Ids that are never said.
    stop : bool
        Stop as soon as all have ended, which changes nothing but the time (published: all steps).
    observe : callable, optional
        Gets, at each step, the log-probabilities (B, K, V) that hypotheses are extended by; 0 for
        those that have ended.
    """
    with searching(captioner):
        memory = captioner.encode(features)
        batch, device = len(features.cells), features.cells.device
        scores = features.cells.new_zeros(batch, 1)
        ended = torch.zeros(batch, 1, dtype=torch.bool, device=device)
        words = torch.full((batch, beam, steps), filler, device=device)
        spoken = features.cells.new_zeros(batch, beam, steps)
        state, fed = captioner.start(memory), torch.full((batch, 1), start, device=device)
        for t in range(steps):
            step = captioner.step(fed, state, memory)
            log_probs, done = forbid(step.log_probs, forbidden), ended.unsqueeze(-1)
            if observe is not None:
                observe(log_probs.masked_fill(done, 0.0).expand(-1, beam, -1))
            said, ids = log_probs.topk(beam)  # the best of all are among the best of each
            said = said.masked_fill_(done, 0.0)
            candidates = scores.unsqueeze(-1) + said
            candidates[..., 1:].masked_fill_(done, -torch.inf)
            scores, order = candidates.flatten(1).topk(beam)
            parents, chosen = order // beam, ids.flatten(1).gather(1, order)
            ended = ended.gather(1, parents)
            deep = parents.unsqueeze(-1).expand(-1, -1, steps)
            words, spoken = words.gather(1, deep), spoken.gather(1, deep)
            words[..., t] = torch.where(ended, filler, chosen)
            spoken[..., t] = said.flatten(1).gather(1, order)
            ended = ended | (chosen == end) & ~ended
            state = select_rows(step.state, parents)
            if stop and bool(ended.all()):
                break
            fed = torch.where(ended, end, chosen)
    scores, order = scores.sort(1, descending=True)
    deep = order.unsqueeze(-1).expand(-1, -1, steps)
    return EndedBeams(words.gather(1, deep), spoken.gather(1, deep), scores)
