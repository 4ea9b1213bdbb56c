"""Beam search over a batch of images at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from capscope.decoding.hypothesis import Hypothesis, searching
from capscope.decoding.sampling import forbid
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Memory, State, select_rows

LengthPenalty = Literal["power", "wu"]


def length_divisor(length: Tensor | int, exponent: float, penalty: LengthPenalty) -> Any:
    """Return what the score of `length` words with the end is divided by.

    power: length ** exponent. wu: ((5 + length) / 6) ** exponent (Wu et al. 2016, eq. 14).
    """
    return length**exponent if penalty == "power" else ((5 + length) / 6) ** exponent


class Beams:
    """K live hypotheses of each of B images, and the best completed ones.

    A step ranks the continuations of all live hypotheses. Those among the first K that end are
    completed; the first K that do not end live on. With `shrink` (published) every completed
    hypothesis takes its place in the beam with it, so the beam gets narrower.

    Parameters
    ----------
    batch, beam, steps : int
        B, K, and the largest number of words with the end.
    end : int
        Id of the end.
    keep : int
        How many completed hypotheses are kept for each image.
    length_normalisation : float
        Completed hypotheses are ranked by sum(log p) / (number of words with the end) ** this.
    length_penalty : {"power", "wu"}
        Which divisor that is, see `length_divisor`.
    like : Tensor
        Scores take its type and device.
    """

    def __init__(
        self,
        batch: int,
        beam: int,
        steps: int,
        *,
        end: int,
        keep: int = 1,
        length_normalisation: float = 0.0,
        length_penalty: LengthPenalty = "power",
        shrink: bool = False,
        like: Tensor,
    ) -> None:
        device = like.device
        self.end, self.shrink, self.exponent = end, shrink, length_normalisation
        self.steps, self.penalty = steps, length_penalty
        self.position = torch.zeros(batch, dtype=torch.long, device=device)
        self.width = torch.full((batch, 1), beam, device=device)
        self.scores = like.new_full((batch, beam), -torch.inf)
        self.scores[:, 0] = 0.0
        self.words = torch.full((batch, beam, steps), end, device=device)
        self.log_probs = like.new_zeros(batch, beam, steps)
        self.best_scores = like.new_full((batch, keep), -torch.inf)
        self.best_words = torch.full((batch, keep, steps), end, device=device)
        self.best_log_probs = like.new_zeros(batch, keep, steps)

    def last_words(self) -> Tensor:
        """Return the word ids (B, K) that come next into the captioner (after the first step)."""
        index = (self.position - 1).view(-1, 1, 1).expand(-1, self.words.shape[1], 1)
        last: Tensor = self.words.gather(-1, index).squeeze(-1)
        return last

    def alive(self) -> Tensor:
        """Return (B,) whether any hypothesis of the image lives."""
        return (self.scores > -torch.inf).any(-1)

    def improvable(self) -> Tensor:
        """Return (B,) whether a live hypothesis could still come among the best completed ones.

        Log-probabilities are at most 0, so a live score can only fall; divided by the largest
        length it is the most that can become of it.
        """
        longest = length_divisor(self.steps, self.exponent, self.penalty)
        bound: Tensor = self.scores.max(-1).values / longest
        return bound > self.best_scores[:, -1]

    def advance(self, log_probs: Tensor, active: Tensor, penalty: Tensor | None = None) -> Tensor:
        """Extend the live hypotheses of the `active` images (B,) by one word.

        Parameters
        ----------
        log_probs : Tensor (B, K, V)
            Log-probabilities of the next word of each live hypothesis.
        penalty : Tensor (B, V) or None
            Subtracted from the ranking of this step only (diverse beam search).

        Returns
        -------
        Tensor (B, K)
            The row that each live hypothesis came from.
        """
        _, beam, vocabulary = log_probs.shape
        totals = (self.scores.unsqueeze(-1) + log_probs).flatten(1)
        ranking = totals
        if penalty is not None:
            ranking = (totals.view_as(log_probs) - penalty.unsqueeze(1)).flatten(1)
        places = min(beam if self.shrink else 2 * beam, beam * vocabulary)
        ranked, order = ranking.topk(places)
        parents, next_words = order // vocabulary, order % vocabulary
        totals = totals.gather(1, order)

        possible = (ranked > -torch.inf) & active.unsqueeze(1)
        within = torch.arange(places, device=order.device) < self.width
        ends = next_words == self.end
        completed = possible & ends & within
        survives = possible & ~ends & (within if self.shrink else True)

        words = self._extend(self.words, parents, next_words)
        spoken = log_probs.flatten(1).gather(1, order)
        history = self._extend(self.log_probs, parents, spoken)
        self._complete(completed, totals, words, history)

        live = (~survives).byte().argsort(dim=1, stable=True)[:, :beam]
        if places < beam:
            live = torch.cat([live, live[:, -1:].expand(-1, beam - places)], 1)
        scores = totals.masked_fill(~survives, -torch.inf).gather(1, live)
        scores[:, places:] = -torch.inf
        deep = live.unsqueeze(-1).expand(-1, -1, words.shape[-1])
        parents = parents.gather(1, live)

        wide = active.unsqueeze(1)
        self.scores = torch.where(wide, scores, self.scores)
        self.words = torch.where(wide.unsqueeze(2), words.gather(1, deep), self.words)
        self.log_probs = torch.where(wide.unsqueeze(2), history.gather(1, deep), self.log_probs)
        self.position = self.position + active
        if self.shrink:
            self.width = self.width - completed.sum(1, keepdim=True)
        return torch.where(wide, parents, torch.arange(beam, device=order.device))

    def _extend(self, rows: Tensor, parents: Tensor, values: Tensor) -> Tensor:
        """Return `rows` (B, K, T) of `parents` (B, M) with `values` (B, M) at the position."""
        chosen = rows.gather(1, parents.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
        index = self.position.view(-1, 1, 1).expand(-1, parents.shape[1], 1)
        return chosen.scatter(2, index.clamp(max=rows.shape[-1] - 1), values.unsqueeze(-1))

    def _complete(
        self, completed: Tensor, totals: Tensor, words: Tensor, log_probs: Tensor
    ) -> None:
        """Merge completed candidates (B, M) into the best ones; the earlier wins a tie."""
        length = (self.position + 1).unsqueeze(1)
        divisor = length_divisor(length, self.exponent, self.penalty)
        scores = (totals / divisor).masked_fill(~completed, -torch.inf)
        keep = self.best_scores.shape[1]
        merged = torch.cat([self.best_scores, scores], 1)
        self.best_scores, order = merged.sort(dim=1, descending=True, stable=True)
        self.best_scores, order = self.best_scores[:, :keep], order[:, :keep]
        deep = order.unsqueeze(-1).expand(-1, -1, words.shape[-1])
        self.best_words = torch.cat([self.best_words, words], 1).gather(1, deep)
        self.best_log_probs = torch.cat([self.best_log_probs, log_probs], 1).gather(1, deep)

    def select(self, images: Tensor) -> None:
        """Keep only some `images` of the batch."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[images])

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Return the completed hypotheses of each image, best first."""
        found = []
        for scores, words, log_probs in zip(
            self.best_scores.tolist(),
            self.best_words.tolist(),
            self.best_log_probs.tolist(),
            strict=True,
        ):
            ranked = []
            for score, word_ids, spoken in zip(scores, words, log_probs, strict=True):
                if score > -torch.inf:
                    n = word_ids.index(self.end)
                    ranked.append(
                        Hypothesis(tuple(word_ids[:n]), tuple(spoken[: n + 1]), True, score)
                    )
            found.append(ranked)
        return found

    def unfinished(self, image: int, length: int) -> Hypothesis:
        """Return the first live hypothesis of an image, cut to `length` words (published)."""
        n = min(int(self.position[image]), length)
        word_ids = tuple(self.words[image, 0, :n].tolist())
        log_probs = tuple(self.log_probs[image, 0, :n].tolist())
        return Hypothesis(word_ids, log_probs, False, float(self.scores[image, 0]))


def beam_search(
    captioner: Captioner,
    features: Features,
    *,
    start: int,
    end: int,
    beam: int,
    max_length: int,
    keep: int = 1,
    length_normalisation: float = 0.0,
    length_penalty: LengthPenalty = "power",
    forbidden: Sequence[int] = (),
    parity: bool = False,
) -> list[list[Hypothesis]]:
    """Search the most probable captions of at most `max_length` words.

    An image is finished as soon as no live hypothesis can come among its best `keep` completed
    ones; finished images leave the batch.

    Parameters
    ----------
    captioner : Captioner
    features : Features
        Of B images.
    start, end : int
        Word ids.
    beam : int
        Live hypotheses of each image.
    max_length : int
        Words; a hypothesis of that length can only end. With `parity`: ids with the start.
    keep : int
        Completed hypotheses to return for each image, at most.
    length_normalisation : float
        0 ranks by the sum of log-probabilities, 1 by their mean.
    length_penalty : {"power", "wu"}
        See `length_divisor`.
    forbidden : sequence of int
        Ids that are never said.
    parity : bool
        The published rules (Sun et al. 2022): the beam shrinks with every completed hypothesis,
        `max_length` steps, and if nothing ended, the first live hypothesis cut to `max_length`
        ids including the start.

    Returns
    -------
    list of list of Hypothesis
        For each image its completed hypotheses, best first.
    """
    steps = max_length if parity else max_length + 1
    with searching(captioner):
        memory = captioner.encode(features)
        batch, device = features.cells.shape[0], features.cells.device
        beams = Beams(
            batch,
            beam,
            steps,
            end=end,
            keep=keep,
            length_normalisation=length_normalisation,
            length_penalty=length_penalty,
            shrink=parity,
            like=features.cells,
        )
        state = captioner.start(memory, beam)
        fed = torch.full((batch, beam), start, device=device)
        images = torch.arange(batch, device=device)
        active = torch.ones_like(images, dtype=torch.bool)
        found: dict[int, list[Hypothesis]] = {}
        for t in range(steps):
            step = captioner.step(fed, state, memory)
            log_probs = forbid(step.log_probs, forbidden)
            if t == max_length:
                log_probs = only(log_probs, end)
            state = select_rows(step.state, beams.advance(log_probs, active))
            active = beams.improvable()
            if t + 1 == steps or not bool(active.any()):
                break
            if 2 * int(active.sum()) <= len(images):
                found.update(_collect(beams, images, ~active, max_length))
                images, memory, state = images[active], _pick(memory, active), _pick(state, active)
                beams.select(active)
                active = active[active]
            fed = beams.last_words()
        found.update(_collect(beams, images, torch.ones_like(active), max_length))
    return [found[image] for image in range(batch)]


def only(log_probs: Tensor, word_id: int) -> Tensor:
    """Return `log_probs` (..., V) with minus infinity everywhere but at `word_id`."""
    alone = torch.full_like(log_probs, -torch.inf)
    alone[..., word_id] = log_probs[..., word_id]
    return alone


def _pick(tensors: Memory | State, images: Tensor) -> dict[str, Tensor]:
    return {name: tensor[images] for name, tensor in tensors.items()}


def _collect(
    beams: Beams, images: Tensor, which: Tensor, max_length: int
) -> dict[int, list[Hypothesis]]:
    """Return the hypotheses of the images in `which` (B,) by their place in the whole batch."""
    completed = beams.hypotheses()
    return {
        image: completed[place] or [beams.unfinished(place, max_length - 1)]
        for place, image in enumerate(images.tolist())
        if which[place]
    }
