"""How probable a captioner finds given words, for many changed inputs at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from capscope.features.visual import Features
from capscope.models.captioner import Captioner

CHUNK = 256
"""Changed inputs that go through a captioner at once."""


def word_probabilities(
    captioner: Captioner,
    features: Callable[[slice], Features],
    prefixes: Sequence[Sequence[int]],
    word_ids: Sequence[int],
) -> Tensor:
    """Return the probability (n,) of each word after its own prefix and before its own features.

    Parameters
    ----------
    captioner : Captioner
        In evaluation mode.
    features : callable
        From a slice of the n rows to their visual features.
    prefixes : sequence (n) of sequences of word ids
        From the start token on; they may differ in length.
    word_ids : sequence (n) of int
    """
    found = [torch.zeros(0)]
    for first in range(0, len(prefixes), CHUNK):
        rows = slice(first, min(first + CHUNK, len(prefixes)))
        chosen = [torch.tensor(prefix) for prefix in prefixes[rows]]
        last = torch.tensor([len(prefix) - 1 for prefix in chosen])
        with torch.no_grad():
            hidden = captioner.hidden(features(rows), pad_sequence(chosen, batch_first=True))
            values = hidden.values[torch.arange(len(chosen)), last].unsqueeze(1)
            probabilities = captioner.readout(values)[:, 0].softmax(-1)
        asked = torch.tensor(word_ids[rows]).unsqueeze(1)
        found.append(probabilities.gather(1, asked).squeeze(1))
    return torch.cat(found)
