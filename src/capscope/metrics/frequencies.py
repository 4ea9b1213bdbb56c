"""Document frequencies: in how many images' references an n-gram occurs.

CIDEr weighs an n-gram by ln(images / document frequency). The images are the evaluated ones (as
the COCO evaluation does it), those of a training corpus, or those of a published n-gram file;
scores of different sources cannot be compared.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from capscope.metrics.ngrams import ORDERS, Counts
from capscope.metrics.words import References, Tokens, Words

EVALUATED = "document frequencies from the evaluated references"


class Frequencies(Protocol):
    """Document frequencies from a corpus other than the evaluated references."""

    @property
    def images(self) -> float:
        """Number of images of the corpus."""

    @property
    def captions(self) -> Words:
        """Captions that hold every n-gram with a frequency."""

    @property
    def source(self) -> str:
        """Where they come from, for the reader of a score."""

    def of_ngrams(self, counts: Counts, size: int) -> NDArray[np.float64]:
        """Return the frequency of each of `size` numbered n-grams.

        Parameters
        ----------
        counts : Counts
            The n-grams of `captions`.
        size : int
        """


@dataclass(frozen=True)
class DocumentFrequencies:
    """Frequencies that were counted elsewhere.

    Attributes
    ----------
    counts : mapping of tuple of tokens to float
        N-grams that are missing count as 0.
    images : float
        Number of images of the corpus.
    source : str
    """

    counts: Mapping[tuple[Hashable, ...], float]
    images: float
    source: str = "document frequencies given as a table"

    @classmethod
    def of(cls, references: Sequence[Sequence[Tokens]]) -> DocumentFrequencies:
        """Count the n-grams of a training corpus: per image, its tokenised references."""
        counts: dict[tuple[Hashable, ...], float] = {}
        for image in tqdm(references, desc="n-grams", unit="image", delay=2):
            ngrams = {
                tuple(caption[place : place + order])
                for caption in image
                for order in range(1, ORDERS + 1)
                for place in range(len(caption) - order + 1)
            }
            for ngram in ngrams:
                counts[ngram] = counts.get(ngram, 0.0) + 1.0
        return cls(counts, len(references))

    @property
    def captions(self) -> Words:
        """The n-grams themselves."""
        return Words.of(list(self.counts))

    def of_ngrams(self, counts: Counts, size: int) -> NDArray[np.float64]:
        """Return the frequency of each of `size` numbered n-grams, 0 where none is given."""
        lengths = np.fromiter(map(len, self.counts), np.int64, len(self.counts))
        values = np.fromiter(self.counts.values(), np.float64, len(self.counts))
        whole = counts.order == lengths[counts.caption] - 1
        frequency = np.zeros(size)
        frequency[counts.ngram[whole]] = values[counts.caption[whole]]
        return frequency


@dataclass(frozen=True)
class CorpusFrequencies:
    """Frequencies that are counted over the references of other images.

    Attributes
    ----------
    references : References
    name : str
        What the images are called in results.
    """

    references: References
    name: str = "training images"

    @property
    def images(self) -> float:
        """Number of images."""
        return len(self.references.per_image)

    @property
    def captions(self) -> Words:
        """All references."""
        return self.references.words

    @property
    def source(self) -> str:
        """Where they come from."""
        return f"document frequencies from {self.images:.0f} {self.name}"

    def of_ngrams(self, counts: Counts, size: int) -> NDArray[np.float64]:
        """Return in how many images each of `size` numbered n-grams occurs."""
        pairs = np.unique(self.references.image[counts.caption] * size + counts.ngram)
        return np.bincount(pairs % size, minlength=size).astype(np.float64)
