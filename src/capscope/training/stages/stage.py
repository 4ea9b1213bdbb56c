"""What a training stage is to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary
from capscope.features.visual import FeatureSource
from capscope.models.captioner import Captioner
from capscope.training.batches import Rows


@dataclass(frozen=True)
class Corpus:
    """What is learnt from: references `rows` of `captions`, and the features of their images."""

    captions: EncodedCaptions
    rows: Rows
    vocabulary: Vocabulary
    store: FeatureSource

    @property
    def first_word(self) -> int:
        """Id that a caption begins with: padding where the vocabulary has no start."""
        start = self.vocabulary.start
        return self.vocabulary.pad if start is None else start


class Outcome(NamedTuple):
    """What a stage makes of one batch."""

    loss: Tensor
    """Scalar, with gradient."""
    weight: int
    """How much the batch counts in the means of an epoch: its words, or captions."""
    measures: Mapping[str, float]
    """Further numbers for the log, such as the mean reward."""
    divisor: int
    """What the loss was divided by: those of the parts of a batch add up in proportion to it."""


class Stage(ABC):
    """An objective with the batches that it is computed on.

    The loop asks for the batches of an epoch and for the outcome of each; it seeds the random
    numbers of each step and says when an epoch begins, so a stage keeps no state of its own.

    Parameters
    ----------
    captioner : Captioner
        What is trained.
    corpus : Corpus
    settings : mapping
        The keys of the stage's parameters beyond `capscope.training.loop.Recipe`.
    """

    unit: ClassVar[str]
    """What batches hold: captions or images."""

    def __init__(self, captioner: Captioner, corpus: Corpus, settings: Mapping[str, Any]) -> None:
        self.captioner, self.corpus, self.settings = captioner, corpus, settings

    @property
    def signature(self) -> dict[str, Any]:
        """What makes numbers of this stage comparable with others': the settings and defaults."""
        return dict(self.settings)

    def begin(self, epoch: int) -> None:
        """Take note that an epoch begins, or goes on; for stages that change between epochs."""
        return

    @abstractmethod
    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[Rows]:
        """Return the batches of an epoch; the same seed and epoch give the same."""

    def parts(self, batch: Rows, count: int) -> list[Rows]:
        """Divide a batch into at most `count` parts, none of them empty."""
        return [part for part in np.array_split(batch, count) if len(part)]

    @abstractmethod
    def step(self, batch: Rows) -> Outcome:
        """Return the loss of one batch."""
