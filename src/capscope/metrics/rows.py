"""What is scored, and what came out: one row per run and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capscope.metrics.registry import in_order
from capscope.metrics.statistics import Measure

HUMAN = "human"
NO_SEED = "-"
"""The seed of captions that come from no run."""


@dataclass(frozen=True)
class Captions:
    """The captions of one run for one split, in the order of the split's images."""

    system: str
    stage: str
    seed: int | str
    split: str
    texts: tuple[str, ...]
    signature: str = ""
    """What its scores depend on beyond the captioner: the reward of a reinforced run (end token,
    document frequencies, baseline), and whether repeated words were said once."""

    @property
    def is_human(self) -> bool:
        """Whether these are the references themselves, left out in turn."""
        return self.system == HUMAN and self.seed == ""

    @property
    def title(self) -> str:
        """What tables call the run."""
        if self.is_human:
            return "human leave-one-out"
        seed = "" if self.seed == NO_SEED else f"seed {self.seed}"
        return " ".join(filter(None, [self.system, self.stage, seed]))


@dataclass(frozen=True)
class Row:
    """The measures of one run on one split."""

    captions: Captions
    measures: Mapping[str, Measure]


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Return the metrics of some rows, in the order of the registry."""
    return in_order(name for row in rows for name in row.measures)


def splits_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each split, in order."""
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.captions.split, []).append(row)
    return splits


def systems_of(rows: Sequence[Row]) -> dict[tuple[str, str], list[int]]:
    """Return the places of each (system, stage)'s rows, its seeds; the human rows left out."""
    systems: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        if not row.captions.is_human:
            key = (row.captions.system, row.captions.stage)
            systems.setdefault(key, []).append(place)
    return systems


def signature_text(signature: Mapping[str, Any], decoding: Mapping[str, Any] = {}) -> str:
    """Return in one line what a reinforced run was rewarded for, and how its captions were changed.

    Such as ``end token both, df training, baseline greedy`` (Hu et al. 2023, arXiv 2305.12254, on
    why scores cannot be compared without it).
    """
    changed = "repeated words said once" if decoding.get("collapse") else ""
    if "end_token" not in signature:
        return changed
    parts = {
        "end token": signature["end_token"],
        "df": signature.get("df", signature.get("frequencies")),
        "baseline": signature.get("baseline"),
    }
    weights = {"CIDEr-D": signature.get("cider_weight", 1), "BLEU-4": signature.get("bleu_weight")}
    text = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    if weights["BLEU-4"]:
        text += ", reward " + " + ".join(f"{weight:g} {name}" for name, weight in weights.items())
    return f"{text}; {changed}" if changed else text
