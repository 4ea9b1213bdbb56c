"""References as batches for teacher forcing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capscope.data.captions import EncodedCaptions
from capscope.data.vocabulary import Vocabulary

Rows = NDArray[np.int64]
WINDOW = 40
"""Batches among which references are sorted by length."""


class CaptionBatch(NamedTuple):
    """B references, framed for teacher forcing over T words.

    Attributes
    ----------
    inputs : Tensor (B, T)
        The start, then the words; padding after the last.
    targets : Tensor (B, T)
        The words, then the end; padding after it.
    valid : Tensor (B, T) bool
        False where `targets` is padding.
    """

    inputs: Tensor
    targets: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> CaptionBatch:
        """Return the batch on `device`."""
        return CaptionBatch(*(tensor.to(device) for tensor in self))


def frame(captions: EncodedCaptions, rows: Rows, vocabulary: Vocabulary) -> CaptionBatch:
    """Frame some references; T is the longest of them with its end.

    A vocabulary without a start begins with padding.
    """
    lengths = torch.from_numpy(captions.lengths[rows])
    longest = int(lengths.max())
    words = torch.from_numpy(captions.labels[rows, :longest].astype(np.int64))
    places = torch.arange(longest + 1)
    words = words.masked_fill(places[:longest] >= lengths.unsqueeze(1), vocabulary.pad)
    first = vocabulary.pad if vocabulary.start is None else vocabulary.start
    inputs = torch.cat([torch.full((len(rows), 1), first), words], 1)
    targets = torch.cat([words, torch.full((len(rows), 1), vocabulary.pad)], 1)
    targets = targets.scatter(1, lengths.unsqueeze(1), vocabulary.end)
    return CaptionBatch(inputs, targets, places <= lengths.unsqueeze(1))


def image_of_row(captions: EncodedCaptions) -> Rows:
    """Return the image id of each reference (M,)."""
    return np.repeat(captions.image_ids, captions.last - captions.first + 1)


def epoch_batches(
    lengths: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int
) -> list[Rows]:
    """Shuffle the references of an epoch into batches of similar length.

    References are shuffled, sorted by length within windows of 40 batches, and the batches are
    shuffled again: little padding, and the same `seed` and `epoch` give the same batches.

    Parameters
    ----------
    lengths : ndarray (M,)
        Words in each reference.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches = []
    for first in range(0, len(order), WINDOW * batch_size):
        window = order[first : first + WINDOW * batch_size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
    return [batches[place] for place in generator.permutation(len(batches))]


def image_batches(
    rows: Rows, image_ids: Rows, batch_size: int, count: int, *, seed: int, epoch: int
) -> list[Rows]:
    """Shuffle the images of an epoch into batches, `count` references of each behind each other.

    Of more references, a random run of `count` neighbours is taken; of fewer, `count` are drawn,
    with replacement (as self-critical captioning programs load them). Images that do not fill a
    batch make a smaller one.

    Parameters
    ----------
    rows, image_ids : ndarray (M,)
        References, and the image of each; those of an image follow each other.
    batch_size : int
        References in a batch; a multiple of `count`, or it is rounded down to one.
    """
    generator = np.random.default_rng([seed, epoch])
    ends = np.flatnonzero(image_ids[1:] != image_ids[:-1]) + 1
    images = np.split(rows, ends)
    chosen = []
    for place in generator.permutation(len(images)):
        own = images[place]
        if len(own) < count:
            chosen.append(generator.choice(own, count))
        else:
            first = generator.integers(len(own) - count + 1)
            chosen.append(own[first : first + count])
    size = max(1, batch_size // count)
    return [np.concatenate(chosen[at : at + size]) for at in range(0, len(chosen), size)]
