"""Weights of the original LRP captioning program (Sun et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.models.gridtd import GridTD

CNN_PREFIX = "img_encoder.encoder."
PLAIN = {
    "projection.weight": "img_projector.weight",
    "projection.bias": "img_projector.bias",
    "global_projection.weight": "global_img_feature_proj.weight",
    "global_projection.bias": "global_img_feature_proj.bias",
    "embedding.weight": "embedding.weight",
    "attention.visual.weight": "AdaAttention.W_v_proj.weight",
    "attention.visual.bias": "AdaAttention.W_v_proj.bias",
    "attention.sentinel.weight": "AdaAttention.W_s_proj.weight",
    "attention.sentinel.bias": "AdaAttention.W_s_proj.bias",
    "attention.query.weight": "AdaAttention.W_g_proj.weight",
    "attention.score.weight": "AdaAttention.w_h.weight",
    "language_lstm.weight_ih": "LanguageLSTM.weight_ih",
    "language_lstm.weight_hh": "LanguageLSTM.weight_hh",
    "language_lstm.bias_ih": "LanguageLSTM.bias_ih",
    "language_lstm.bias_hh": "LanguageLSTM.bias_hh",
    "words.weight": "fc.weight",
    "words.bias": "fc.bias",
}
"""Our parameter names of gridTD and the original's."""
STACKED = {
    "attention_lstm.weight_ih": ("AdaLSTM.lstm_cell.weight_ih", "AdaLSTM.x_gate.weight"),
    "attention_lstm.weight_hh": ("AdaLSTM.lstm_cell.weight_hh", "AdaLSTM.h_gate.weight"),
    "attention_lstm.bias_ih": ("AdaLSTM.lstm_cell.bias_ih", "AdaLSTM.x_gate.bias"),
    "attention_lstm.bias_hh": ("AdaLSTM.lstm_cell.bias_hh", "AdaLSTM.h_gate.bias"),
}
"""Parameters that hold two of the original's, one below the other (LSTM gates, sentinel gate)."""


def gridtd_from_original(state: Mapping[str, Tensor]) -> tuple[GridTD, dict[str, Tensor]]:
    """Build gridTD (grid or region variant) from an original state dict.

    Returns the captioner, with the published behaviour (`parity`), and the state of the image
    network (empty for regions), keys as in torchvision's ``features``.
    Raises `CapscopeError` naming a missing tensor.
    """
    needed = [*PLAIN.values(), *(name for pair in STACKED.values() for name in pair)]
    for name in needed:
        if name not in state:
            raise CapscopeError(f"not a gridTD checkpoint: it has no tensor {name!r}")
    projection = state["img_projector.weight"].flatten(1)
    vocabulary_size, embedding = state["embedding.weight"].shape
    captioner = GridTD(
        vocabulary_size,
        projection.shape[1],
        embedding,
        hidden=projection.shape[0],
        attention=state["AdaAttention.W_v_proj.weight"].shape[0],
        global_from="features" if state["img_projector.weight"].dim() == 4 else "projected",
        parity=True,
    )
    loaded = {ours: state[theirs] for ours, theirs in PLAIN.items()}
    loaded["projection.weight"] = projection
    for ours, theirs in STACKED.items():
        loaded[ours] = torch.cat([state[name] for name in theirs])
    captioner.load_state_dict(loaded)
    network = {
        name.removeprefix(CNN_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(CNN_PREFIX)
    }
    return captioner, network


def with_doubled_bias(captioner: GridTD) -> GridTD:
    """Return a copy that computes what the published LRP explainer computes before it explains.

    Its language LSTM adds bias_ih twice and bias_hh never, so the explained logits differ from the
    captioner's. `LRP_AS_PUBLISHED` on this copy gives the published relevance.
    """
    copy = deepcopy(captioner)
    with torch.no_grad():
        copy.language_lstm.bias_hh.copy_(copy.language_lstm.bias_ih)
    return copy
