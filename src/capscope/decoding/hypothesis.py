"""What a search returns, and the mode that it runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from capscope.relevance.product import fastest_products


@dataclass(frozen=True)
class Hypothesis:
    """One caption as a captioner says it.

    Attributes
    ----------
    word_ids : tuple of int
        The caption without start and end.
    log_probs : tuple of float
        Log-probability of each word, and of the end if the caption has `ended`.
    ended : bool
        False if a published search was cut off before the end (only with ``parity``), or if the
        end was removed with a bad ending.
    score : float
        What the search ranked by: the sum of `log_probs`, penalised or normalised as asked.
    """

    word_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    ended: bool
    score: float


@contextmanager
def searching(captioner: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and put the captioner back into its mode afterwards.

    Products are the fastest there are.
    """
    training = captioner.training
    captioner.eval()
    try:
        with torch.no_grad(), fastest_products():
            yield
    finally:
        captioner.train(training)
