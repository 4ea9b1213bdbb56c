"""One run over one split, as the published latent-space program sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from capscope.benchmarks.latent_files import LatentFiles
from capscope.data.annotations import Image
from capscope.errors import CapscopeError
from capscope.explain.latent.objects import ObjectFinder, named_finder, tagged_finder
from capscope.explain.latent.replacement import bounds_of
from capscope.explain.subject import Subject
from capscope.features.regions import read_names
from capscope.features.store import FeatureStore
from capscope.files import read_json, write_json


@dataclass
class LatentRun:
    """One run over one split.

    Attributes
    ----------
    subject : Subject
    store : FeatureStore
    images : sequence of Image
    files : LatentFiles
    seed : int
        Of masks, noise and the random baseline.
    parity : bool
        As published.
    names : Path or None
        A line for each class, if the features do not name them; as of Visual Genome.
    tags : Path or None
        JSON of words with their Penn Treebank tags: the objects of a caption are its nouns, two in
        a row one, as published. Without it they are the names of classes.
    """

    subject: Subject
    store: FeatureStore
    images: Sequence[Image]
    files: LatentFiles
    seed: int = 1
    parity: bool = False
    names: Path | None = None
    tags: Path | None = None

    @property
    def feature_count(self) -> int:
        """Visual features of an image, padding included."""
        return self.store.read([self.images[0].id]).cells.shape[1]

    @cached_property
    def classes(self) -> dict[str, list[int]]:
        """The class of each feature of an image, best first, by the image's file."""
        given = self.files.classes()
        if given is not None:
            largest = max((one for ids in given.values() for one in ids), default=0)
            if largest >= len(self.class_names):
                raise CapscopeError(
                    f"the class file names class {largest}, but there are "
                    f"{len(self.class_names)} names: give those of its detector by --class-names"
                )
            if not any(key_of(image) in given for image in self.images):
                raise CapscopeError(
                    f"the class file has no image of the split {self.files.split}, such as "
                    f"{key_of(self.images[0])}: it is of another data set or split"
                )
            return given
        if self.store.kind != "regions" or self.store.regions(self.images[0].id).class_ids is None:
            raise CapscopeError(
                f"{self.store.path} knows no classes of its features: extract regions with a "
                f"detector, or give lime_probs/{self.files.dataset}/object_classes_scores_"
                f"{self.files.split}.json"
            )
        found = {}
        for image in self.images:
            class_ids = self.store.regions(image.id).class_ids
            found[key_of(image)] = [] if class_ids is None else class_ids.tolist()
        return found

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the detector's classes."""
        if self.names is not None:
            return read_names(str(self.names))
        names: list[str] = list(self.store.attributes.get("class_names") or [])
        if not names:
            raise CapscopeError(
                f"{self.store.path} has no class_names: give a file with a line for each class by "
                "--class-names"
            )
        return names

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds of each latent dimension, measured on the split unless the file is there."""
        path = self.files.lime / "bounds.json"
        if not path.exists():
            seen = self.store.read([image.id for image in self.images])
            with torch.no_grad():
                latent = self.subject.captioner.project(seen)
            pair = bounds_of(latent, None if self.parity else seen.valid)
            write_json(path, [one.tolist() for one in pair], indent=None)
        low, high = torch.tensor(read_json(path))
        return low, high

    @cached_property
    def finder(self) -> ObjectFinder:
        """Finds the objects of a caption."""
        if self.tags is None:
            return named_finder(self.class_names)
        tags = read_json(self.tags)
        if not isinstance(tags, dict) or not all(isinstance(tag, str) for tag in tags.values()):
            raise CapscopeError(f"{self.tags} is no mapping of words to tags such as NN")
        return tagged_finder(tags)

    @cached_property
    def word_map(self) -> dict[str, int]:
        """Ids of the words, and of the specials as the program writes them."""
        vocabulary = self.subject.vocabulary
        found = {word: place for place, word in enumerate(vocabulary.words)}
        start = vocabulary.pad if vocabulary.start is None else vocabulary.start
        unk = vocabulary.pad if vocabulary.unk is None else vocabulary.unk
        special = {"start": start, "end": vocabulary.end, "unk": unk, "pad": vocabulary.pad}
        return found | {f"<{name}>": place for name, place in special.items()}


def key_of(image: Image) -> str:
    """Return what the program's files call an image: its file's name without folders."""
    return PurePosixPath(image.file).name
