"""The forward pass of the published LRP explainers, which is not that of their captioners."""

from __future__ import annotations

from copy import deepcopy

import torch

from capscope.models.aoa import AoA
from capscope.models.captioner import Captioner
from capscope.models.gridtd import GridTD


def with_doubled_bias(captioner: Captioner) -> Captioner:
    """Return a copy that computes what the published LRP explainer computes before it explains.

    The language LSTM of gridTD, and the LSTM of AoA, add bias_ih twice and bias_hh never, so the
    explained logits differ from the captioner's. `LRP_AS_PUBLISHED` on this copy gives the
    published relevance. A captioner without this error is returned as it is.

    Source: the program of Sun et al. 2022.
    """
    if not isinstance(captioner, GridTD | AoA):
        return captioner
    copy = deepcopy(captioner)
    lstm = copy.language_lstm if isinstance(copy, GridTD) else copy.lstm
    with torch.no_grad():
        lstm.bias_hh.copy_(lstm.bias_ih)
    return copy
