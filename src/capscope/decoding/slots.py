"""Beam and diverse beam search by the published rules of the self-critical captioning programs.

They differ from `capscope.decoding.beam`: a completed hypothesis leaves its slot to live on with a
score of -1000, a hypothesis is completed after T words though it has not ended, and groups of
diverse beam search run one step behind each other. Here all images go at once.

Source: the program of the spatial transformer, after Vijayakumar et al. 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from capscope.decoding.hypothesis import Hypothesis, searching
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, State, select_rows

GHOST = -1000.0
"""Score of a slot whose hypothesis is completed."""
LAST_WORD = 1000.0
"""What the last word of the vocabulary, the unknown one, loses at each step."""


class Slots:
    """One group: b hypotheses of each of B images, and the b best completed ones."""

    def __init__(self, batch: int, slots: int, steps: int, like: Tensor) -> None:
        self.scores = like.new_zeros(batch, slots)
        self.words = torch.zeros(batch, slots, steps, dtype=torch.long, device=like.device)
        self.log_probs = like.new_zeros(batch, slots, steps)
        self.best_scores = like.new_full((batch, slots), -torch.inf)
        self.best_words, self.best_log_probs = self.words.clone(), self.log_probs.clone()
        self.best_lengths = self.words[..., 0].clone()

    def advance(self, t: int, log_probs: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Extend all slots by one word; returns rows and words (B, b).

        `log_probs` (B, b, V) is recorded; less `penalty` (B, V), it decides.
        """
        slots = log_probs.shape[1]
        ranked, words = (log_probs - penalty.unsqueeze(1)).topk(slots)
        totals = self.scores.unsqueeze(-1) + ranked
        if t == 0:  # all slots are alike
            totals[:, 1:] = -torch.inf
        # Candidates stand rank by rank, of each rank all slots; the sort is stable.
        totals, words = totals.transpose(1, 2).flatten(1), words.transpose(1, 2).flatten(1)
        scores, order = totals.sort(dim=1, descending=True, stable=True)
        order = order[:, :slots]
        rows, words = order % slots, words.gather(1, order)
        deep = rows.unsqueeze(-1)
        spoken = log_probs.gather(1, deep.expand(-1, -1, log_probs.shape[-1]))
        deep = deep.expand(-1, -1, self.words.shape[-1])
        self.scores = scores[:, :slots]
        self.words = self.words.gather(1, deep)
        self.log_probs = self.log_probs.gather(1, deep)
        self.words[..., t] = words
        self.log_probs[..., t] = spoken.gather(-1, words.unsqueeze(-1)).squeeze(-1)
        return rows, words

    def complete(self, t: int, completed: Tensor, divisor: float) -> None:
        """Note completed slots (B, b) down; the earlier wins a tie."""
        slots = completed.shape[1]
        scores = (self.scores / divisor).masked_fill(~completed, -torch.inf)
        self.best_scores, order = torch.cat([self.best_scores, scores], 1).sort(
            dim=1, descending=True, stable=True
        )
        self.best_scores, order = self.best_scores[:, :slots], order[:, :slots]
        deep = order.unsqueeze(-1).expand(-1, -1, self.words.shape[-1])
        self.best_words = torch.cat([self.best_words, self.words], 1).gather(1, deep)
        self.best_log_probs = torch.cat([self.best_log_probs, self.log_probs], 1).gather(1, deep)
        lengths = torch.full_like(self.best_lengths, t + 1)
        self.best_lengths = torch.cat([self.best_lengths, lengths], 1).gather(1, order)
        self.scores = self.scores.masked_fill(completed, GHOST)

    def hypotheses(self, image: int, end: int) -> list[Hypothesis]:
        """Return the completed hypotheses of an image, best first."""
        found = []
        for score, words, log_probs, length in zip(
            self.best_scores[image].tolist(),
            self.best_words[image].tolist(),
            self.best_log_probs[image].tolist(),
            self.best_lengths[image].tolist(),
            strict=True,
        ):
            ended = words[length - 1] == end
            said = tuple(words[: length - ended])
            found.append(Hypothesis(said, tuple(log_probs[:length]), ended, score))
        return found


def slot_search(
    captioner: Captioner,
    features: Features,
    *,
    start: int,
    end: int,
    beam: int,
    max_length: int,
    groups: int = 1,
    penalty: float = 0.5,
    length_penalty: Callable[[int], float] | None = None,
    suppress_last: bool = True,
) -> list[list[Hypothesis]]:
    """Search captions of at most `max_length` words, the end not among them.

    Parameters
    ----------
    beam, groups : int
        Slots of each group, and how many groups: 1 is plain beam search.
    penalty : float
        Taken off a word for each slot of the groups before that has it at the same step, as their
        hypotheses stand by then.
    length_penalty : callable, optional
        From the number of words with the end to the divisor of the score.
    suppress_last : bool
        Lower the last word of the vocabulary by 1000, which the program takes for the unknown one.

    Returns
    -------
    list of list of Hypothesis
        For each image the completed hypotheses of the first group, best first, then those of the
        second, and so on.
    """
    with searching(captioner):
        memory = captioner.encode(features)
        like = next(tensor for tensor in memory.values() if tensor.is_floating_point())
        batch = len(features.cells)
        first = captioner.step(
            torch.full((batch, beam), start, device=like.device),
            captioner.start(memory, beam),
            memory,
        )
        known, states = [first.log_probs] * groups, [first.state] * groups
        found = [Slots(batch, beam, max_length, like) for _ in range(groups)]
        for time in range(max_length + groups - 1):
            for g, group in enumerate(found):
                t = time - g
                if not 0 <= t < max_length:
                    continue
                log_probs = known[g].clone()
                if suppress_last:
                    log_probs[..., -1] -= LAST_WORD
                lowered = log_probs.new_zeros(batch, log_probs.shape[-1])
                for earlier in found[:g]:
                    said = earlier.words[..., t]
                    lowered = lowered.scatter_add(1, said, lowered.new_full(said.shape, penalty))
                rows, words = group.advance(t, log_probs, lowered)
                completed = (words == end) | (t == max_length - 1)
                divisor = length_penalty(t + 1) if length_penalty else 1.0
                group.complete(t, completed, divisor)
                if t + 1 < max_length:
                    state: State = select_rows(states[g], rows)
                    step = captioner.step(words, state, memory)
                    known[g], states[g] = step.log_probs, step.state
        return [
            [one for group in found for one in group.hypotheses(image, end)]
            for image in range(batch)
        ]
