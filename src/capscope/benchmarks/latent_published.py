"""The two evaluations of Elguendouze et al. 2023, as published: "correlation" and ablation.

The correlation is none: it compares one rank with one rank. The ablation perturbs the most
important features of every object of a caption and searches again. `latent_correlation` and
`latent_ablation` measure what these names promise.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.explain.latent.objects import Match, ObjectFinder
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.published import BEAM, STEPS
from capscope.explain.latent.replacement import (
    SIGMA,
    Constant,
    RejectionNoise,
    Replacement,
)
from capscope.features.visual import Features
from capscope.models.captioner import Captioner

MAGNITUDES = ("min", "max", "15")


class Compared(NamedTuple):
    """The rank of an object's first feature in an explanation, against its detector rank."""

    reference: int
    rank: int
    distance: int
    similarity: float


def compare_rank(order: Sequence[int], reference: int) -> Compared:
    """Compare ranks as published: ranking an object higher than the detector costs nothing."""
    rank = list(order).index(reference)
    distance = max(0, rank - reference)
    return Compared(reference, rank, distance, 1 / (1 + distance))


class RankScore(NamedTuple):
    """The published "correlation" over a data set."""

    common: int
    non_common: int
    distance: float
    score: float


def rank_score(compared: Sequence[Compared], non_common: int) -> RankScore:
    """Average over the objects of all captions; 0 if there are none."""
    count = len(compared)
    return RankScore(
        count,
        non_common,
        sum(one.distance for one in compared) / count if count else 0.0,
        sum(one.similarity for one in compared) / count if count else 0.0,
    )


def common_objects(matches: Sequence[Match]) -> tuple[list[Match], int]:
    """Return the objects that were detected, and how many of the named classes were not."""
    common = [match for match in matches if match.reference is not None]
    missing = [m for m in matches if m.class_id is not None and m.reference is None]
    return common, len(missing)


@dataclass(frozen=True)
class AblationType:
    """What is ablated: ``vf_6_min``, ``ob_2_15``, ...

    Attributes
    ----------
    unit : {"vf", "ob"}
        Single visual features, or all features of the objects that the first ones belong to.
    count : int
    magnitude : {"min", "max", "15"}
        Zeros, a large constant, or Gaussian noise with sigma 1.5 within bounds.
    """

    unit: Literal["vf", "ob"]
    count: int
    magnitude: Literal["min", "max", "15"]

    @classmethod
    def parse(cls, text: str) -> AblationType:
        """Read a type; a `CapscopeError` says how it is written."""
        parts = text.split("_")
        if len(parts) == 3:
            unit, count, magnitude = parts
            if (
                unit in ("vf", "ob")
                and count.isascii()
                and count.isdigit()
                and int(count) > 0
                and magnitude in MAGNITUDES
            ):
                return cls(unit, int(count), magnitude)  # type: ignore[arg-type]
        raise CapscopeError(
            f"unknown type of ablation {text!r}: write vf_X_M (X visual features) or ob_X_M (X "
            f"objects), with M one of {', '.join(MAGNITUDES)}, such as vf_6_min"
        )

    def __str__(self) -> str:
        return f"{self.unit}_{self.count}_{self.magnitude}"

    def positions(self, order: Sequence[int], class_ids: Sequence[int]) -> list[int] | None:
        """Return the features to ablate, in the order of their noise; None if there are too few.

        Parameters
        ----------
        order : sequence of int
            Features from the most important one on.
        class_ids : sequence of int
            Of each feature but padding; -1 is no object.
        """
        if self.unit == "vf":
            return list(order[: self.count]) if self.count <= len(order) else None
        chosen: list[int] = []
        for feature in order:
            if len(chosen) == self.count:
                break
            if feature >= len(class_ids):
                return None
            if class_ids[feature] >= 0 and class_ids[feature] not in chosen:
                chosen.append(class_ids[feature])
        return of_classes(chosen, class_ids) if len(chosen) == self.count else None


def of_classes(chosen: Sequence[int], class_ids: Sequence[int]) -> list[int]:
    """Return all features of some classes, class by class."""
    return [place for one in chosen for place, found in enumerate(class_ids) if found == one]


def random_positions(
    kind: AblationType, features: int, class_ids: Sequence[int], source: random.Random
) -> list[int] | None:
    """Draw features, or classes and all of their features, from Python's generator."""
    if kind.unit == "vf":
        return source.sample(range(features), kind.count) if kind.count <= features else None
    classes = sorted(set(class_ids))
    if kind.count > len(classes):
        return None
    return of_classes(source.sample(classes, kind.count), class_ids)


@dataclass
class AblationFigures:
    """The figures that the original program prints."""

    words: int = 0
    drops: int = 0
    found: int = 0
    missing: int = 0
    ignored: int = 0
    total: np.float32 = field(default_factory=lambda: np.float32(0))

    def to_json(self) -> dict[str, float]:
        """Return them by their published names; without a word, shares are 0."""
        count = max(self.words, 1)
        return {
            "freq_drop": self.drops / count,
            "avg_drop": float(self.total / np.float32(count)),
            "nb_words": self.words,
            "nb_found": self.found,
            "nb_missing": self.missing,
            "pct_missing": self.missing / count,
            "nb_ignored": self.ignored,
        }


class Ablated(NamedTuple):
    """One ablated search."""

    object: str
    positions: list[int]
    caption: str


class InOrder(Replacement):
    """The published noise at given positions, row after row in their order."""

    def __init__(self, noise: RejectionNoise, positions: Sequence[Sequence[int]]) -> None:
        self._noise, self._positions = noise, iter(positions)

    def __call__(self, features: Tensor, masks: Tensor) -> Tensor:
        """Return features with noise; `masks` says only how many rows there are."""
        return self._noise.in_order(features, list(islice(self._positions, len(masks))))


@dataclass
class Ablation:
    """The published ablation of images, one after the other.

    Attributes
    ----------
    captioner : Captioner
        In evaluation mode.
    word_map : mapping
        Word to id, specials among them (``<start>``, ``<end>``, ``<unk>``, ``<pad>``).
    finder : callable
        Finds the objects of a caption.
    kind : AblationType
    low, high : Tensor (P,)
        Bounds of the noise.
    maximum : float
        The constant of ``max``.
    noise : numpy.random.RandomState
    published : bool
        An object of several words ends the image, which then counts as ignored. Otherwise its
        log-probability is the mean of its words'.
    """

    captioner: Captioner
    word_map: Mapping[str, int]
    finder: ObjectFinder
    kind: AblationType
    low: Tensor
    high: Tensor
    maximum: float
    noise: np.random.RandomState
    published: bool = True

    def __post_init__(self) -> None:
        self.figures = AblationFigures()
        self._words = {word_id: word for word, word_id in self.word_map.items()}
        self._special = {self.word_map[f"<{name}>"] for name in ("start", "end", "unk", "pad")}
        self._noise = RejectionNoise(SIGMA, self.low, self.high, self.noise)

    def image(
        self, features: Features, asked: Sequence[tuple[str, Sequence[int] | None]]
    ) -> list[Ablated]:
        """Ablate one image for each object and its positions; count, and return what is said.

        An object without positions (fewer features or objects than asked for) is left out, and
        the image counts as ignored.
        """
        ignored = not asked
        usable: list[tuple[str, list[int]]] = []
        for name, positions in asked:
            if positions is None:
                ignored = True
                continue
            usable.append((name, list(positions)))
            if self.published and name not in self.word_map:
                break
        said = self._search(features, usable) if usable else []
        given_up = bool(said) and self._ids(said[-1].object) is None
        self.figures.ignored += ignored or given_up
        return said

    def _ids(self, name: str) -> list[int] | None:
        """Return the word ids of an object; None if it is no word (as published: no single one)."""
        parts = [name] if self.published else name.split()
        known = [self.word_map[part] for part in parts if part in self.word_map]
        return known if len(known) == len(parts) else None

    def _search(self, features: Features, usable: Sequence[tuple[str, list[int]]]) -> list[Ablated]:
        """Search with each ablation and without, and count."""
        count = features.cells.shape[1]
        masks = torch.zeros(len(usable) + 1, count, dtype=torch.bool)
        for row, (_, positions) in zip(masks[1:], usable, strict=True):
            row[positions] = True
        found = Perturbed(
            self.captioner, features, self._replacement([(), *(one for _, one in usable)])
        ).search(
            masks,
            start=self.word_map["<start>"],
            end=self.word_map["<end>"],
            beam=BEAM,
            steps=STEPS,
        )
        figures, said = self.figures, []
        for row, (name, positions) in enumerate(usable, 1):
            caption = self._text(found.captions[row])
            said.append(Ablated(name, positions, caption))
            figures.words += 1
            ids = self._ids(name)
            if ids is None:
                break
            before, after = (found.log_probs[place, ids].mean().numpy() for place in (0, row))
            figures.total = np.float32(figures.total + (before - after))
            figures.drops += bool(after < before)
            if name in self.finder(caption):
                figures.found += 1
            else:
                figures.missing += 1
        return said

    def _replacement(self, positions: Sequence[Sequence[int]]) -> Replacement:
        if self.kind.magnitude == "15":
            return InOrder(self._noise, positions)
        return Constant(0.0 if self.kind.magnitude == "min" else self.maximum)

    def _text(self, word_ids: Sequence[int]) -> str:
        return " ".join(self._words[one] for one in word_ids if one not in self._special)
