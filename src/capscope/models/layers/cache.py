"""What a transformer's decoder remembers between steps: keys and values of the words it has read.

In the `State` of a captioner, layer i has ``keys<i>`` and ``values<i>`` (B, K, S, H) of S words;
``read`` (B, K, S) says which of them may be attended to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from capscope.models.captioner import AttentionLayers, Hidden, State


class Past(NamedTuple):
    """What a decoder layer keeps of the words it has read, each (B K, S, H)."""

    keys: Tensor
    values: Tensor

    def after(self, past: Past | None) -> Past:
        """Return these words behind those of `past`."""
        if past is None:
            return self
        return Past(torch.cat([past.keys, self.keys], 1), torch.cat([past.values, self.values], 1))


class Decoded(NamedTuple):
    """What a decoder layer makes of Q words of K captions of each of B images."""

    x: Tensor
    """(B K, Q, H)."""
    past: Past
    own: Tensor
    """(B K, Q, heads, S) weights over words."""
    cross: Tensor
    """(B, K Q, heads, N) weights over visual features."""


def nothing_read(values: Tensor, rows: int, layers: int) -> State:
    """Return the state before the first word, for a memory of `values` (B, N, H)."""
    batch, _, size = values.shape
    empty = values.new_zeros(batch, rows, 0, size)
    state = {f"{kind}{i}": empty for i in range(layers) for kind in ("keys", "values")}
    return {**state, "read": empty.new_zeros(batch, rows, 0, dtype=torch.bool)}


def pasts(state: State, layers: int) -> list[Past]:
    """Return what each layer has kept, the rows of all images in one axis."""
    return [
        Past(state[f"keys{i}"].flatten(0, 1), state[f"values{i}"].flatten(0, 1))
        for i in range(layers)
    ]


def state_after(read: Tensor, layers: Sequence[Decoded]) -> State:
    """Return the state when the words of `read` (B, K, S) have been read."""
    state: State = {"read": read}
    for i, layer in enumerate(layers):
        state[f"keys{i}"] = layer.past.keys.view(*read.shape, -1)
        state[f"values{i}"] = layer.past.values.view(*read.shape, -1)
    return state


def hidden_of(x: Tensor, encoder: Sequence[Tensor], layers: Sequence[Decoded]) -> Hidden:
    """Return what a teacher-forced pass gives: values (B K, T, H) and all attention.

    Parameters
    ----------
    x : Tensor (B K, T, H)
        Output of the last layer.
    encoder : sequence of Tensor (B, N, heads, N)
        Weights of the encoder's layers.
    layers : sequence of Decoded
    """
    rows, steps = x.shape[:2]
    cross = [layer.cross.reshape(rows, steps, *layer.cross.shape[2:]) for layer in layers]
    return Hidden(
        x,
        cross[-1],
        AttentionLayers(
            tuple(weights.transpose(1, 2) for weights in encoder),
            tuple(layer.own.transpose(1, 2) for layer in layers),
            tuple(weights.transpose(1, 2) for weights in cross),
        ),
    )
