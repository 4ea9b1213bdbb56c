"""Where the document frequencies of CIDEr come from, as the parameters name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from capscope.data.annotations import Dataset, Image, read_karpathy
from capscope.errors import CapscopeError
from capscope.files import read_json
from capscope.metrics.frequencies import CorpusFrequencies, DocumentFrequencies, Frequencies
from capscope.metrics.frequency_files import is_frequencies, read_frequencies
from capscope.metrics.results import read_references
from capscope.metrics.words import References, Words
from capscope.params import expand_path


@dataclass(frozen=True)
class Corpus:
    """A source of document frequencies.

    Attributes
    ----------
    groups : sequence (one entry per image) of sequences of str
        References that must be tokenised and counted; none where frequencies are known or those
        of the evaluated references are meant.
    name : str
        What their images are called in results.
    table : DocumentFrequencies or None
        Frequencies that are known.
    """

    groups: Sequence[Sequence[str]] = ()
    name: str = ""
    table: DocumentFrequencies | None = None

    def frequencies(self, tokenized: Sequence[str]) -> Frequencies | None:
        """Return the frequencies, given the tokenised texts of all groups in one row."""
        if not self.groups:
            return self.table
        per_image = np.fromiter(map(len, self.groups), np.int64, len(self.groups))
        return CorpusFrequencies(References(Words.split(tokenized)[0], per_image), self.name)


def open_corpus(setting: str, dataset: Dataset) -> Corpus:
    """Open what ``metrics.frequencies`` names.

    Parameters
    ----------
    setting : str
        ``references``: the evaluated ones. ``train``: the training images of `dataset`.
        Otherwise a file: n-grams (`read_frequencies`), or captions to count, as COCO captions
        JSON or as Karpathy JSON, of which the train split counts.
    dataset : Dataset
        What is evaluated.
    """
    if setting == "references":
        return Corpus()
    if setting == "train":
        return _counted(dataset.split("train"), "training images", f"data set {dataset.name}")
    return read_corpus(expand_path(setting))


def read_corpus(path: Path, kind: str = "words") -> Corpus:
    """Open a file of document frequencies, or of captions to count (see `open_corpus`).

    Parameters
    ----------
    path : Path
    kind : {"words", "idxs"}
        Of n-gram files: see `read_frequencies`.
    """
    if is_frequencies(path):
        return Corpus(table=read_frequencies(path, kind))
    loaded = read_json(path)
    if isinstance(loaded, dict) and "annotations" not in loaded:
        images = read_karpathy(path, path.parent, path.stem).split("train")
        return _counted(images, f"training images of {path.name}", str(path))
    return _counted(read_references(path).images, f"images of {path.name}", str(path))


def _counted(images: Sequence[Image], name: str, where: str) -> Corpus:
    if not images:
        raise CapscopeError(
            f"metrics.frequencies: {where} has no images in its split train to count n-grams in; "
            "name an n-gram file or a captions file instead, or `references`"
        )
    return Corpus([image.references for image in images], name)
