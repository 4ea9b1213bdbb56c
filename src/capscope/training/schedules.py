"""How the learning rate moves, as plain numbers that a training state can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP = 0.2
"""Share of a cycle in which the rate rises."""
FIRST, LAST = 0.1, 1e-4
"""Rates at both ends of a cycle, as shares of the highest."""
FACTOR, PATIENCE, SMALLEST = 0.8, 2, 2e-5
"""Plateau: shrink by this after so many epochs without a better score, while above the smallest."""
BORNE = 3
"""Halving: so many epochs without a better score are let pass."""


@dataclass
class Schedule:
    """Learning rate as a function of the step and of the validation scores so far.

    Attributes
    ----------
    name : {"one_cycle", "plateau", "halving", "constant", "step", "noam", "difnet"}
        ``one_cycle`` rises and falls by half cosines (Smith and Topin 2018); ``plateau`` is the
        published rule: times 0.8 after 2 epochs without a better CIDEr, while above 2e-5;
        ``halving`` is torch's: times 0.5 after more than 3 epochs without a better score;
        ``step`` is times `decay` after each `every` epochs; ``noam`` rises in a line for `warm_up`
        steps, then falls with the root of the step (Vaswani et al. 2017, eq. 3; its peak, H^-0.5
        warm_up^-0.5 times a factor, is `highest`); ``difnet`` goes by epochs: quarters of `highest`
        up to all of it in the fourth, a fifth from the eleventh on, a twenty-fifth from the
        thirteenth (Wu et al. 2022).
    highest : float
        The largest rate.
    steps : int
        Steps of the whole training.
    epochs, decay, every, warm_up : int, float, int, int
        Of ``step`` and ``noam``.
    rate, best, waited : float, float, int
        What ``plateau`` has come to: rate, best score, epochs since.
    """

    name: str
    highest: float
    steps: int
    epochs: int = 1
    decay: float = 1.0
    rate: float = math.nan
    best: float | None = None
    waited: int = 0
    every: int = 1
    warm_up: int = 1

    def __post_init__(self) -> None:
        if math.isnan(self.rate):
            self.rate = self.highest

    def at(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        if self.name == "one_cycle":
            return self.highest * _one_cycle(step / max(1, self.steps - 1))
        if self.name == "step":
            epoch = step * self.epochs // self.steps
            return float(self.highest * self.decay ** (epoch // self.every))
        if self.name == "noam":
            ahead = (step + 1) / self.warm_up
            return float(self.highest * min(ahead**-0.5, ahead))
        if self.name == "difnet":
            epoch = step * self.epochs // self.steps
            return self.highest * _by_epoch(epoch)
        return self.rate

    def observe(self, score: float) -> None:
        """Take note of an epoch's validation score."""
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.name == "plateau" and self.waited == PATIENCE:
            self.waited = 0
            if self.rate > SMALLEST:
                self.rate *= FACTOR
        if self.name == "halving" and self.waited > BORNE:
            self.waited = 0
            self.rate *= 0.5


def sampling_probability(
    epoch: int, start: int, every: int, increase: float, most: float, parity: bool = False
) -> float:
    """Return the probability of scheduled sampling in epoch 0, 1, ...

    It grows by `increase` each `every` epochs after epoch `start`, up to `most`. As published
    (`parity`), `start` 0 means never.
    """
    if epoch <= start or start < 0 or (parity and start == 0):
        return 0.0
    return min(increase * ((epoch - start) // every), most)


def _by_epoch(epoch: int) -> float:
    """Return the share of the highest rate in epoch 0, 1, ... of DIFNet."""
    if epoch < 3:
        return (epoch + 1) / 4
    if epoch < 10:
        return 1.0
    return 0.2 if epoch < 12 else 0.04


def _one_cycle(progress: float) -> float:
    """Return the share of the highest rate at `progress` in [0, 1]."""
    if progress < WARM_UP:
        return _half_cosine(FIRST, 1.0, progress / WARM_UP)
    return _half_cosine(1.0, LAST, (progress - WARM_UP) / (1 - WARM_UP))


def _half_cosine(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2
