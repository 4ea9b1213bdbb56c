"""Noise in one component of a captioner at a time: which of them do its captions depend on?

Source: S. Elguendouze et al., "Towards Explainable Deep Learning for Image Captioning through
Representation Space Perturbation", IJCNN 2022. The components are those of its program; its noise
levels and bounds are known in part, see `PUBLISHED`. Its measure MSICE is not: the formula is not
publicly available.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.explain.latent.replacement import BoundedNoise
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step
from capscope.models.layers.attention import AdaptiveAttention

Change = Callable[[Tensor], Tensor]


class Component(NamedTuple):
    """A place in a captioner."""

    title: str
    module: str | None
    """Attribute of the captioner whose output holds it; None: the projected visual features."""
    field: str | None = None
    """Field of the module's output; None: the output itself."""


COMPONENTS = {
    "VF": Component("projected visual features", None),
    "WE": Component("word embedding", "embedding"),
    "HT": Component("hidden state of the attention LSTM", "attention_lstm", "h"),
    "CT": Component("context that attention mixes", "attention", "mixed"),
}
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "coco": {"WE": (-5.0, 5.0), "HT": (-1.0, 1.0), "CT": (-1.0, 9.5)},
    "flickr30k": {"WE": (-5.0, 5.0), "HT": (-1.0, 1.0), "CT": (-1.0, 14.0)},
}
"""The program's bounds of its own captioners, by data set; those of VF were not published."""


class Range(NamedTuple):
    """The values of a component."""

    low: Tensor
    """(P,) the least of each dimension."""
    high: Tensor
    """(P,)"""
    deviation: float
    """Of all values."""


class Noise:
    """Gaussian noise within bounds.

    Parameters
    ----------
    sigma : float
    low, high : Tensor (P,)
    seed : int
    dimensions : int, optional
        The first dimensions that are noised; all by default. The program noises the first half of
        CT.
    """

    def __init__(
        self, sigma: float, low: Tensor, high: Tensor, seed: int, dimensions: int | None = None
    ) -> None:
        self.dimensions = len(low) if dimensions is None else dimensions
        self._noise = BoundedNoise(sigma, low[: self.dimensions], high[: self.dimensions], seed)

    def __call__(self, values: Tensor) -> Tensor:
        """Return values (B, K, P) with noise."""
        changed = values.clone()
        first = values[..., : self.dimensions]
        everything = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        changed[..., : self.dimensions] = self._noise(first, everything)
        return changed


class NoisyCaptioner(Captioner):
    """A captioner of which one component is changed in every step, or in some.

    Noise in HT stays in the captioner's state. Noise in VF is added once for an image.

    Parameters
    ----------
    captioner : Captioner
    component : str
        Key of `COMPONENTS`.
    change : callable
        Takes and returns values (B, K, P).
    steps : collection of int or None
        Steps that are changed, the first is 0; None: all of them.
    """

    def __init__(
        self,
        captioner: Captioner,
        component: str,
        change: Change,
        steps: Collection[int] | None = None,
    ) -> None:
        super().__init__()
        self.captioner, self.component, self.change, self.steps = (
            captioner,
            component,
            change,
            steps,
        )
        self.vocabulary_size = captioner.vocabulary_size
        self._place, self._field = _module(captioner, component), COMPONENTS[component].field
        self._step = 0

    def project(self, features: Features) -> Tensor:
        """Return the latent visual features (B, N, P)."""
        latent = self.captioner.project(features)
        return self.change(latent) if self._place is None else latent

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the captioner's memory."""
        return self.captioner.memory(latent, features)

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the captioner's first state; steps are counted from here."""
        self._step = 0
        return self.captioner.start(memory, rows)

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Take one step of the captioner."""
        now, self._step = self._step, self._step + 1
        if self.steps is not None and now not in self.steps:
            return self.captioner.step(word_ids, state, memory)
        with self._changed():
            return self.captioner.step(word_ids, state, memory)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T), all steps changed."""
        with self._changed():
            return self.captioner.hidden(features, word_ids)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return the captioner's logits."""
        return self.captioner.readout(hidden, ids)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        if self._place is None:
            yield
            return
        handle = self._place.register_forward_hook(self._hook)
        try:
            yield
        finally:
            handle.remove()

    def _hook(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self._field is None:
            return self.change(output)
        return output._replace(**{self._field: self.change(getattr(output, self._field))})


def components_of(captioner: Captioner, wanted: Collection[str]) -> list[str]:
    """Return the components among those `wanted` that a captioner has.

    Raises
    ------
    CapscopeError
        For one that is unknown.
    """
    for name in wanted:
        if name not in COMPONENTS:
            raise CapscopeError(
                f"unknown component {name!r} of a captioner; there are: {', '.join(COMPONENTS)}"
            )
    return [name for name in wanted if name == "VF" or _module(captioner, name) is not None]


def _module(captioner: Captioner, component: str) -> nn.Module | None:
    """Return the module whose output holds a component; None if the captioner has none."""
    _, name, field = COMPONENTS[component]
    found = getattr(captioner, name, None) if name is not None else None
    adaptive = field != "mixed" or isinstance(found, AdaptiveAttention)
    return found if isinstance(found, nn.Module) and adaptive else None


def ranges_of(
    captioner: Captioner, features: Features, word_ids: Tensor, components: Collection[str]
) -> Mapping[str, Range]:
    """Measure the values of components while the captioner says captions (B, T) word by word.

    Parameters
    ----------
    word_ids : Tensor (B, T + 1)
        Captions with the start token; what stands behind their end counts, too.
    """
    found = {}
    for component in components:
        seen: list[Tensor] = []

        def keep(values: Tensor, into: list[Tensor] = seen) -> Tensor:
            into.append(values.flatten(0, -2))
            return values

        watched = NoisyCaptioner(captioner, component, keep)
        with torch.no_grad():
            memory = watched.encode(features)
            state = watched.start(memory)
            for fed in word_ids[:, :-1].T:
                state = watched.step(fed[:, None], state, memory).state
        values = torch.cat(seen)
        low, high = values.min(0).values, values.max(0).values
        found[component] = Range(low, high, float(values.std(correction=0)))
    return found
