"""Captioners that are kept from repeating themselves, with every decoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step

Trigrams = Literal["allow", "lower", "forbid"]
LOWERED = 2 * 0.693
"""Published: what each earlier occurrence of a trigram takes off its log-probability."""


class Unrepeating(Captioner):
    """A captioner whose steps forbid or lower words that would repeat something.

    The state keeps what each row has said; decoders need to know nothing of it. Log-probabilities
    of the other words stay as they are: they do not sum to 1 any more (published). `hidden` and
    `readout` are the captioner's own.

    Parameters
    ----------
    captioner : Captioner
    word_twice : bool
        False: no word directly behind itself ("decoding constraint").
    trigrams : {"allow", "lower", "forbid"}
        What becomes of a word that would end a trigram which the caption has already: ``lower``
        takes 1.386 off its log-probability for each earlier occurrence, as published; ``forbid``
        does what "blocking" says (Paulus et al. 2018, section 2.5).
    """

    def __init__(
        self, captioner: Captioner, *, word_twice: bool = True, trigrams: Trigrams = "allow"
    ) -> None:
        super().__init__()
        if trigrams not in ("allow", "lower", "forbid"):
            raise CapscopeError(f"trigrams is {trigrams!r}; allowed: allow, lower, forbid")
        self.captioner, self.vocabulary_size = captioner, captioner.vocabulary_size
        self.word_twice, self.trigrams = word_twice, trigrams
        self.train(captioner.training)

    def project(self, features: Features) -> Tensor:
        """Return the captioner's latent visual features."""
        return self.captioner.project(features)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the captioner's memory."""
        return self.captioner.memory(latent, features)

    def encode(self, features: Features) -> Memory:
        """Return the captioner's memory."""
        return self.captioner.encode(features)

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the captioner's state, and that nothing has been fed."""
        state = self.captioner.start(memory, rows)
        some = next(iter(state.values()))
        fed = torch.zeros(*some.shape[:2], 0, dtype=torch.long, device=some.device)
        return {**state, "fed": fed, "count": fed.sum(-1)}

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K), the start first."""
        count = state["count"]
        fed = torch.cat([state["fed"], torch.full_like(word_ids, -1).unsqueeze(-1)], -1)
        fed = fed.scatter(-1, count.unsqueeze(-1), word_ids.unsqueeze(-1))
        own = {name: tensor for name, tensor in state.items() if name not in ("fed", "count")}
        step = self.captioner.step(word_ids, own, memory)
        log_probs = step.log_probs
        if not self.word_twice:
            again = (count > 0).unsqueeze(-1)  # not the start
            lowest = log_probs.new_full((), -torch.inf)
            found = torch.where(again, lowest, log_probs.gather(-1, word_ids.unsqueeze(-1)))
            log_probs = log_probs.scatter(-1, word_ids.unsqueeze(-1), found)
        if self.trigrams != "allow":
            log_probs = self._without_trigrams(log_probs, fed, count)
        return Step(log_probs, {**step.state, "fed": fed, "count": count + 1}, step.attention)

    def _without_trigrams(self, log_probs: Tensor, fed: Tensor, count: Tensor) -> Tensor:
        """Lower words that would end a trigram again; `count` words have been said."""
        words = fed[..., 1:]  # without the start
        if words.shape[-1] < 3:
            return log_probs
        last = fed.gather(-1, count.unsqueeze(-1))
        last_but_one = fed.gather(-1, (count - 1).clamp(min=0).unsqueeze(-1))
        first, second, third = words[..., :-2], words[..., 1:-1], words[..., 2:]
        same = (first == last_but_one) & (second == last) & (third >= 0)
        often = torch.zeros_like(log_probs).scatter_add(
            -1, third.clamp(min=0), same.to(log_probs.dtype)
        )
        if self.trigrams == "lower":
            return log_probs - LOWERED * often
        return log_probs.masked_fill(often > 0, -torch.inf)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Return the captioner's teacher-forced pass."""
        return self.captioner.hidden(features, word_ids)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return the captioner's logits."""
        return self.captioner.readout(hidden, ids)
