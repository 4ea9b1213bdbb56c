"""The residual network of the bottom-up detector (He et al., 2016, in Caffe's form).

The stride of a block is in its first convolution. Modules are named as in the published weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d


class FrozenNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """Batch normalisation with stored statistics, in one fused operation."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return normalised maps (B, C, h, w)."""
        return functional.batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class NormedConvolution(nn.Conv2d):
    """A convolution without bias, and the normalisation behind it."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        self.norm = FrozenNorm(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, outputs, h', w')."""
        normed: Tensor = self.norm(super().forward(maps))
        return normed


class Stem(nn.Module):
    """A 7 x 7 convolution and maximum pooling, both of stride 2.

    Parameters
    ----------
    padded : bool
        False: pooling windows start at 0 and the last may be cut off, as in Caffe. True: they
        start at -1, half a cell further up and left.
    """

    def __init__(self, width: int, padded: bool) -> None:
        super().__init__()
        self.conv1 = NormedConvolution(3, width, 7, 2)
        self.padding = 1 if padded else 0
        self.ceil_mode = not padded

    def forward(self, images: Tensor) -> Tensor:
        """Return maps (B, width, H/4, W/4)."""
        maps = functional.relu_(self.conv1(images))
        return functional.max_pool2d(maps, 3, 2, self.padding, ceil_mode=self.ceil_mode)


class Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 beside a shortcut."""

    def __init__(
        self, inputs: int, width: int, outputs: int, *, first: bool, stride: int, dilation: int
    ) -> None:
        super().__init__()
        self.shortcut = NormedConvolution(inputs, outputs, 1, stride) if first else None
        self.conv1 = NormedConvolution(inputs, width, 1, stride)
        self.conv2 = NormedConvolution(width, width, 3, 1, dilation)
        self.conv3 = NormedConvolution(width, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (B, outputs, h', w')."""
        shortcut = maps if self.shortcut is None else self.shortcut(maps)
        maps = functional.relu_(self.conv1(maps))
        maps = functional.relu_(self.conv2(maps))
        return functional.relu_(self.conv3(maps).add_(shortcut))


def stage(
    blocks: int, inputs: int, width: int, outputs: int, *, stride: int, dilation: int = 1
) -> nn.Sequential:
    """Return the blocks of one resolution; the first has the stride and a shortcut of its own."""
    return nn.Sequential(
        *(
            Bottleneck(
                outputs if index else inputs,
                width,
                outputs,
                first=index == 0,
                stride=1 if index else stride,
                dilation=dilation,
            )
            for index in range(blocks)
        )
    )


class Predictor(nn.Module):
    """What the detector says of each region: class, box, and attribute if it knows attributes."""

    def __init__(self, dim: int, classes: int, attributes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(dim, classes + 1)
        self.bbox_pred = nn.Linear(dim, classes * 4)
        self.knows_attributes = attributes > 0
        if attributes:
            self.cls_embedding = nn.Embedding(classes + 1, dim // 8)
            self.fc_attr = nn.Linear(dim + dim // 8, dim // 4)
            self.attr_score = nn.Linear(dim // 4, attributes + 1)

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits of classes (R, C+1), box deltas (R, 4C), logits of attributes (R, A+1).

        "Background" and "no attribute" are the last. An attribute depends on the likeliest
        class, which may be the background.
        """
        classes = self.cls_score(cells)
        return classes, self.bbox_pred(cells), self.attributes(cells, classes)

    def attributes(self, cells: Tensor, classes: Tensor) -> Tensor | None:
        """Return logits of attributes (R, A+1) of regions with these logits of classes."""
        if not self.knows_attributes:
            return None
        embedded = self.cls_embedding(classes.argmax(1))
        hidden = torch.relu(self.fc_attr(torch.cat([cells, embedded], 1)))
        logits: Tensor = self.attr_score(hidden)
        return logits
