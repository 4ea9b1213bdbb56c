"""How a training computes: in which parts, on which device, how exactly, compiled or not.

None of it changes what is trained. A batch is computed in parts, one after the other
(``accumulate``) and by several processes (`Team`), and gradients add up to those of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from capscope.decoding.sampling import NotFiniteError
from capscope.errors import CapscopeError
from capscope.features.device import chosen_device, on_device
from capscope.features.visual import FeatureSource
from capscope.models.captioner import Captioner
from capscope.relevance.product import fastest_products
from capscope.training.batches import Rows
from capscope.training.stages.stage import Stage
from capscope.training.team import ALONE, Team

PROCESSOR = torch.device("cpu")


class Measured(NamedTuple):
    """What a step measured over the whole batch."""

    values: dict[str, float]
    """The loss first, then the stage's other measures."""
    weight: int
    """How much the batch counts in the means of an epoch."""


@dataclass(frozen=True)
class Computation:
    """The section ``training`` of the parameters, and the processes that train together.

    Attributes
    ----------
    accumulate : int
        Parts of a batch that a process computes one after the other.
    precision : {"float32", "bfloat16"}
        ``bfloat16`` multiplies matrices in it (autocast); weights and their updates stay float32.
    compile : bool
        Teacher forcing is compiled by torch.compile.
    device : torch.device
    team : Team
    """

    accumulate: int = 1
    precision: str = "float32"
    compile: bool = False
    device: torch.device = PROCESSOR
    team: Team = ALONE

    @classmethod
    def of(cls, section: Mapping[str, Any], team: Team) -> Computation:
        """Read the section ``training`` of the parameters.

        Raises
        ------
        CapscopeError
            The processes are not those that the parameters ask for.
        """
        processes = section["processes"]
        if team.size != processes:
            raise CapscopeError(
                f"training.processes is {processes}, but {team.size} train: start "
                f"`torchrun --standalone --nproc-per-node {processes} --no-python capscope train "
                "...`, or set training.processes"
            )
        device = chosen_device(section["device"])
        options = {key: section[key] for key in ("accumulate", "precision", "compile")}
        return cls(**options, device=device, team=team)

    def prepare(self, captioner: Captioner) -> None:
        """Move a captioner to the device, and compile what computes whole captions."""
        captioner.to(self.device)
        if self.compile:
            for name in ("hidden", "readout"):
                setattr(captioner, name, torch.compile(getattr(captioner, name), dynamic=True))

    def source(self, source: FeatureSource) -> FeatureSource:
        """Return a source whose features are on the device."""
        return on_device(source, self.device)

    def gradients(self, stage: Stage, batch: Rows, parameters: Sequence[Tensor]) -> Measured:
        """Compute the gradients of a batch; a loss that is not a number is returned as NaN."""
        parts = stage.parts(batch, self.team.size * self.accumulate)
        if len(parts) == 1 and self.team.size == 1:
            return _whole(stage, parts[0], self._arithmetic())
        own = len(parts) * self.team.rank // self.team.size
        end = len(parts) * (self.team.rank + 1) // self.team.size
        tally: dict[str, float] = {"loss": 0.0}
        divisor = weight = 0
        for part in parts[own:end]:
            try:
                with self._arithmetic():
                    outcome = stage.step(part)
            except NotFiniteError:
                tally["loss"] = math.nan
                continue
            (outcome.loss * outcome.divisor).backward()  # type: ignore[no-untyped-call]
            tally["loss"] += outcome.loss.item() * outcome.divisor
            for name, value in outcome.measures.items():
                tally[name] = tally.get(name, 0.0) + value * outcome.weight
            divisor, weight = divisor + outcome.divisor, weight + outcome.weight
        return self._added(tally, divisor, weight, parameters)

    def _added(
        self, tally: dict[str, float], divisor: int, weight: int, parameters: Sequence[Tensor]
    ) -> Measured:
        """Add up what all processes found, gradients in place."""
        used = [parameter.grad is not None for parameter in parameters]
        everyones = self.team.gather((tally, divisor, weight, used))
        divisor = sum(one[1] for one in everyones)
        weight = sum(one[2] for one in everyones)
        total: dict[str, float] = {}
        for one, *_ in everyones:
            for name, value in one.items():
                total[name] = total.get(name, 0.0) + value
        gradients = []
        for parameter, *needed in zip(parameters, *(one[3] for one in everyones), strict=True):
            if any(needed):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        self.team.add(gradients)
        for gradient in gradients:
            gradient.div_(divisor)
        loss = total.pop("loss") / max(divisor, 1)
        values = {name: value / max(weight, 1) for name, value in total.items()}
        return Measured({"loss": loss, **values}, weight)

    def _arithmetic(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass: in float32, with the fastest products there are.

        In bfloat16, weights are cast anew each time: those that a draw without gradients has cast
        have none.
        """
        if self.precision == "float32":
            return nullcontext() if self.compile else fastest_products()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)


def _whole(stage: Stage, batch: Rows, arithmetic: AbstractContextManager[object]) -> Measured:
    try:
        with arithmetic:
            outcome = stage.step(batch)
    except NotFiniteError:
        return Measured({"loss": math.nan}, 0)
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    return Measured({"loss": outcome.loss.item(), **outcome.measures}, outcome.weight)


PLAIN = Computation()
"""One process, whole batches, float32, on the processor."""
