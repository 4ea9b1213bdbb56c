"""Stacks of 3 x 3 convolutions and 2 x 2 pooling, as VGG16's, of any depth and width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from capscope.errors import CapscopeError

POOL = "M"
VGG16: tuple[int | str, ...] = (
    *(64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL),
    *(512, 512, 512, POOL, 512, 512, 512),
)
"""torchvision's VGG16 up to its last convolution (conv5_3)."""


class VGG(nn.Sequential):
    """Convolutions, each with a rectifier, and maximum pooling.

    Parameters
    ----------
    plan : sequence of int or "M"
        Output channels of each convolution; "M" pools. The modules are numbered as torchvision
        numbers those of its VGG networks.
    """

    def __init__(self, plan: Sequence[int | str]) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for entry in plan:
            if entry == POOL:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, int(entry), 3, padding=1), nn.ReLU()]
                channels = int(entry)
        super().__init__(*layers)


def plan_of(state: Mapping[str, Tensor]) -> list[int | str]:
    """Return the plan of a stack from the names and shapes of its weights.

    Two convolutions are two modules apart, or three with pooling between them.

    Raises
    ------
    CapscopeError
        Naming a tensor that no such stack has.
    """
    channels: dict[int, int] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(\d+)\.(weight|bias)", name)
        if not match or (match[2] == "weight" and tuple(tensor.shape[2:]) != (3, 3)):
            raise CapscopeError(
                f"tensor {name!r} of shape {tuple(tensor.shape)} belongs to no stack of 3 x 3 "
                "convolutions (VGG): other image networks are not read"
            )
        channels[int(match[1])] = int(tensor.shape[0])
    places = sorted(channels)
    if not places or places[0] != 0:
        raise CapscopeError("the image network has no first convolution '0.weight'")
    plan: list[int | str] = [channels[0]]
    for before, place in pairwise(places):
        if place - before not in (2, 3):
            raise CapscopeError(
                f"the image network has nothing between tensors {before}.weight and "
                f"{place}.weight: no stack of convolutions is like that"
            )
        plan += [POOL, channels[place]] if place - before == 3 else [channels[place]]
    return plan
