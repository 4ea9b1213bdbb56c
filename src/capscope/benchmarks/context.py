"""What benchmarks are given: the explanations of a run, and what else they may ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from capscope.data.annotations import Dataset, open_dataset
from capscope.data.vocabulary import Vocabulary
from capscope.explain.split import open_subject
from capscope.explain.store import RelevanceStore, StoredRelevance
from capscope.explain.subject import Subject
from capscope.features.store import FeatureStore
from capscope.files import read_json
from capscope.models.checkpoint import INFO_FILE


@dataclass
class Context:
    """One run with its explanations; the rest is opened when a benchmark asks for it.

    Attributes
    ----------
    stores : sequence of RelevanceStore
        One for each explainer and split; those of a split explain the same captions.
    run_dir, data_dir, features_dir : Path
    params : dict
    """

    stores: Sequence[RelevanceStore]
    run_dir: Path
    data_dir: Path
    features_dir: Path
    params: dict[str, Any] = field(repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters of benchmarks."""
        found: dict[str, Any] = self.params["benchmarks"]
        return found

    @property
    def bootstrap(self) -> dict[str, int]:
        """Resamples and seed, as measuring functions take them."""
        return {"resamples": self.settings["bootstrap"], "seed": self.settings["seed"]}

    @cached_property
    def dataset(self) -> Dataset:
        """The images with their references."""
        return open_dataset(self.data_dir, self.params)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The run's, without loading its weights."""
        path = self.run_dir / INFO_FILE
        return Vocabulary.from_json(read_json(path)["vocabulary"], str(path))

    @cached_property
    def subject(self) -> Subject:
        """The captioner with the network behind its features."""
        return open_subject(self.run_dir, self.features_dir)[1]

    @cached_property
    def features(self) -> FeatureStore:
        """The visual features that the captioner read."""
        return FeatureStore.open(self.features_dir)


class ExplainedCaption(NamedTuple):
    """One caption, and what each explainer says of it."""

    split: str
    image_id: int
    word_ids: tuple[int, ...]
    by_explainer: dict[str, StoredRelevance]


def explained_captions(
    stores: Sequence[RelevanceStore], label: str, images: int | None = None
) -> Iterator[ExplainedCaption]:
    """Yield the captions of all splits, each stored explanation read once.

    Parameters
    ----------
    label : str
        Of the progress bar.
    images : int, optional
        Captions of each split, the first ones; all if not given.
    """
    splits = dict.fromkeys(store.split for store in stores)
    groups = [[store for store in stores if store.split == split] for split in splits]
    counts = [len(group[0]) if images is None else min(images, len(group[0])) for group in groups]
    with tqdm(total=sum(counts), desc=label, unit="caption") as progress:
        for split, group, count in zip(splits, groups, counts, strict=True):
            for row in range(count):
                stored = {store.explainer: store[row] for store in group}
                first = stored[group[0].explainer]
                yield ExplainedCaption(split, first.image_id, first.word_ids, stored)
                progress.update()
