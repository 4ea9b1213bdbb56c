"""Several captioners over one vocabulary as one captioner: mean of probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step
from capscope.relevance import operations as ops


class Ensemble(Captioner):
    """p(word) = sum_m w_m p_m(word): each member decodes by itself, their probabilities mix.

    All members see the same visual features. Memory and state hold those of all members, with the
    member's number in front of each name; so every decoder takes an ensemble for a captioner. What
    `readout` returns are log-probabilities, which are logits too.

    Parameters
    ----------
    members : sequence of Captioner
    weights : sequence of float, optional
        One for each member; they are divided by their sum. By default all are equal.

    Raises
    ------
    CapscopeError
        No member, vocabularies of different sizes, or weights that are not one positive number
        for each member.
    """

    def __init__(
        self, members: Sequence[Captioner], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not members:
            raise CapscopeError("an ensemble needs at least one captioner")
        sizes = {member.vocabulary_size for member in members}
        if len(sizes) > 1:
            raise CapscopeError(
                f"an ensemble needs one vocabulary; its members know {sorted(sizes)} words"
            )
        chosen = [1.0] * len(members) if weights is None else list(weights)
        if len(chosen) != len(members) or not all(0 < weight < float("inf") for weight in chosen):
            raise CapscopeError(
                f"weights {chosen} of an ensemble of {len(members)}: give each member one "
                "positive number"
            )
        self.vocabulary_size = sizes.pop()
        self.members = nn.ModuleList(members)
        self.shares = [weight / sum(chosen) for weight in chosen]
        self.train(any(member.training for member in members))

    def project(self, features: Features) -> Tensor:
        """Return the latent visual features of all members side by side: (B, N, sum of P)."""
        return torch.cat([member.project(features) for member in self._members()], -1)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the memories of all members."""
        found: Memory = {}
        start = 0
        for number, member in enumerate(self._members()):
            width = member.project(features.select(slice(0, 1))).shape[-1]
            own = member.memory(latent[..., start : start + width], features)
            found.update(_named(number, own))
            start += width
        return found

    def encode(self, features: Features) -> Memory:
        """Return the memories of all members for a batch of images."""
        return {
            name: tensor
            for number, member in enumerate(self._members())
            for name, tensor in _named(number, member.encode(features)).items()
        }

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the states of all members before the first word."""
        return {
            name: tensor
            for number, member in enumerate(self._members())
            for name, tensor in _named(number, member.start(_of(number, memory), rows)).items()
        }

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is the members' mean where they attend alike."""
        steps = [
            member.step(word_ids, _of(number, state), _of(number, memory))
            for number, member in enumerate(self._members())
        ]
        states: State = {}
        for number, step in enumerate(steps):
            states.update(_named(number, step.state))
        attention = self._mixed_attention([step.attention for step in steps])
        return Step(self._mixed([step.log_probs for step in steps]), states, attention)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T); values are the members' log-probabilities, (B, T, members V).

        Raises
        ------
        CapscopeError
            In relevance mode: a mean of probabilities is no operation that carries relevance.
        """
        if ops.in_relevance_mode():
            raise CapscopeError("an ensemble cannot be explained: explain its members one by one")
        passes = [member.hidden(features, word_ids) for member in self._members()]
        values = [
            member.readout(found.values).log_softmax(-1)
            for member, found in zip(self._members(), passes, strict=True)
        ]
        attention = self._mixed_attention([found.attention for found in passes])
        return Hidden(torch.cat(values, -1), attention)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return log-probabilities (B, T, V), or only those of `ids` (B, T) as (B, T)."""
        log_probs = self._mixed(torch.split(hidden, self.vocabulary_size, -1))
        return log_probs if ids is None else log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)

    def _members(self) -> list[Captioner]:
        return list(self.members)  # type: ignore[arg-type]

    def _mixed(self, log_probs: Sequence[Tensor]) -> Tensor:
        """Return log sum_m w_m p_m."""
        stacked = torch.stack(list(log_probs))
        shares = stacked.new_tensor(self.shares).log()
        return (stacked + shares.view(-1, *[1] * (stacked.dim() - 1))).logsumexp(0)

    def _mixed_attention(self, found: Sequence[Tensor | None]) -> Tensor | None:
        """Return the weighted mean of attention weights over visual features, heads averaged."""
        weights = [one.mean(2) if one is not None and one.dim() == 4 else one for one in found]
        present = [one for one in weights if one is not None]
        if len(present) < len(weights):
            return None
        return sum(
            (share * one for share, one in zip(self.shares[1:], present[1:], strict=True)),
            self.shares[0] * present[0],
        )


def _named(number: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{number}.{name}": tensor for name, tensor in tensors.items()}


def _of(number: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{number}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
