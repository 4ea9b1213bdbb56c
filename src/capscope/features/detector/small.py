"""The small detector of the demo: proposals and descriptions on the maps of the small network.

In two stages, as in Ren et al., "Faster R-CNN" (2015), but with one box a cell instead of anchors
(Tian et al., "FCOS", 2019). The second stage also takes windows that cover the image evenly, so
that the regions tell of what is behind the objects, as those of the bottom-up detector do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from capscope.features.small import SmallNetwork

WINDOWS = (1, 2, 3, 4)
"""Windows along each side of the image; 1 is the whole of it."""
PROPOSALS = 32
"""Proposals of the first stage that the second describes, besides the windows."""
CANDIDATES = 64
"""Cells with the highest scores, whose boxes become proposals."""
PROPOSAL_OVERLAP = 0.7
"""IoU above which the weaker of two proposals is dropped."""
OVERLAPS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU above which the weaker of two regions is dropped: the first that leaves enough regions."""
SAMPLES = 2
"""Points along each side of a bin that are averaged."""
LEAST_SIDE = 1e-3
"""Bound of a box's sides, relative to the image, where they divide."""


class Found(NamedTuple):
    """The regions of one image, best first, with everything the network says of them.

    Attributes
    ----------
    features : Tensor (n, D)
        Not negative.
    boxes : Tensor (n, 4)
        In [0, 1].
    classes, attributes : Tensor (n, K)
        Probabilities; those of the background and of no attribute are left out.
    """

    features: Tensor
    boxes: Tensor
    classes: Tensor
    attributes: Tensor


class RegionNetwork(nn.Module):
    """The small network up to its last pooling, with two stages on its maps.

    Parameters
    ----------
    channels : sequence of int
        Of the small network, as `SmallNetwork` takes them.
    classes, attributes : int
        How many there are, without background and without none.
    hidden : int
        Width of the first stage.
    size : int
        D, the length of a region's feature.
    bins : int
        Cells to which a region is pooled, along each side.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        attributes: int,
        hidden: int = 64,
        size: int = 128,
        bins: int = 3,
    ) -> None:
        super().__init__()
        self.bins = bins
        self.body = nn.Sequential(*list(SmallNetwork(channels))[:-1])
        self.neighbourhood = nn.Conv2d(channels[-1], hidden, 3, padding=1)
        self.cell_classes = nn.Conv2d(hidden, classes, 1)
        self.cell_sides = nn.Conv2d(hidden, 4, 1)
        self.feature = nn.Linear(channels[-1] * bins**2, size)
        self.classes = nn.Linear(size, classes + 1)
        self.attributes = nn.Linear(size, attributes + 1)
        self.shift = nn.Linear(size, 4)
        nn.init.constant_(self.cell_classes.bias, -4.0)  # type: ignore[arg-type]
        nn.init.constant_(self.cell_sides.bias, -2.0)  # type: ignore[arg-type]

    def cells(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (B, h*w, K) of the cells of maps, and the box (B, h*w, 4) of each."""
        seen = torch.relu(self.neighbourhood(maps))
        logits = self.cell_classes(seen).flatten(2).transpose(1, 2)
        sides = self.cell_sides(seen).flatten(2).transpose(1, 2).exp()
        centres = cell_centres(maps.shape[-2], maps.shape[-1])
        return logits, torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], -1)

    def propose(self, maps: Tensor) -> list[Tensor]:
        """Return boxes (n, 4) for each image, at most `PROPOSALS`, best first."""
        logits, boxes = self.cells(maps)
        found = []
        for scores, own in zip(logits.amax(-1), boxes.clamp(0, 1), strict=True):
            best = scores.topk(min(CANDIDATES, len(scores))).indices
            kept = nms(own[best], scores[best], PROPOSAL_OVERLAP)[:PROPOSALS]
            found.append(own[best[kept]])
        return found

    def linear_features(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Return the features (n, D) of boxes in [0, 1] before rectification.

        The boxes of each image are a tensor; their maps are pooled by RoIAlign (He et al., 2017).
        """
        height, width = maps.shape[-2:]
        scale = maps.new_tensor([width, height, width, height])
        pooled = roi_align(
            maps, [own * scale for own in boxes], self.bins, 1.0, SAMPLES, aligned=True
        )
        linear: Tensor = self.feature(pooled.flatten(1))
        return linear

    def forward(self, images: Tensor, most: int) -> list[Found]:
        """Return at most `most` regions of each preprocessed image (B, 3, S, S)."""
        return self.find(self.body(images), most)

    def find(self, maps: Tensor, most: int) -> list[Found]:
        """Return at most `most` regions of each image, given the maps (B, C, h, w) of its body."""
        extra = windows().to(maps)
        boxes = [torch.cat([own, extra]) for own in self.propose(maps)]
        features = torch.relu(self.linear_features(maps, boxes))
        classes = self.classes(features).softmax(-1)[:, :-1]
        attributes = self.attributes(features)[:, :-1].softmax(-1)
        moved = move(torch.cat(boxes), self.shift(features))
        counts = [len(own) for own in boxes]
        found = []
        for one in zip(
            *(part.split(counts) for part in (features, moved, classes, attributes)), strict=True
        ):
            kept = select(one[1], one[2].amax(-1), most)
            found.append(Found(*(part[kept] for part in one)))
        return found


def select(boxes: Tensor, scores: Tensor, most: int) -> Tensor:
    """Return which of the boxes (n, 4) stay, best first, at most `most`.

    Weaker boxes that overlap a stronger one are dropped, whatever their class, at the first of
    `OVERLAPS` that leaves `most`, else at the last: the procedure of the 36-region files of the
    bottom-up detector.
    """
    kept = scores.new_empty(0, dtype=torch.long)
    for overlap in OVERLAPS:
        kept = nms(boxes, scores, overlap)[:most]
        if len(kept) == most:
            break
    return kept


def windows() -> Tensor:
    """Return the windows (30, 4) that cover the image evenly, large ones first."""
    found = [
        [column / count, row / count, (column + 1) / count, (row + 1) / count]
        for count in WINDOWS
        for row in range(count)
        for column in range(count)
    ]
    return torch.tensor(found)


def cell_centres(height: int, width: int) -> Tensor:
    """Return the centres x, y in [0, 1] of the cells of a map, row by row: (h*w, 2)."""
    rows, columns = ((torch.arange(count) + 0.5) / count for count in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


def shifts(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return what `move` must be told to bring boxes (n, 4) onto targets (n, 4)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST_SIDE)
    wanted = (targets[:, 2:] - targets[:, :2]).clamp(min=LEAST_SIDE)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat(
        [((targets[:, :2] + targets[:, 2:]) / 2 - centres) / sides, (wanted / sides).log()], 1
    )


def move(boxes: Tensor, shift: Tensor) -> Tensor:
    """Shift centres (in widths and heights) and stretch sides (logarithms) of boxes in [0, 1]."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST_SIDE)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + shift[:, :2] * sides
    half = sides * shift[:, 2:].clamp(-2, 2).exp() / 2
    return torch.cat([centres - half, centres + half], 1).clamp(0, 1)
