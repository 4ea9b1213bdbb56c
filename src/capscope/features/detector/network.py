"""The bottom-up detector on torchvision's parts: Faster R-CNN with a ResNet-C4 and attributes.

Anderson et al., "Bottom-up and top-down attention" (CVPR 2018); Ren et al., "Faster R-CNN" (2015).
Modules and parameters are named as in the published weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import nms, roi_pool

from capscope.errors import CapscopeError
from capscope.features.detector.backend import Found, split_by_image
from capscope.features.detector.boxes import (
    RATIOS,
    STRIDE,
    Size,
    anchor_boxes,
    clip,
    decode,
    not_empty,
)
from capscope.features.detector.inputs import Preparation
from capscope.features.detector.layers import Predictor, Stem, stage
from capscope.features.device import arithmetic

POOLED = 14
"""Cells to which a region is pooled, along each side."""
ANCHOR_SIZES = (64, 128, 256, 512)
CHUNK = 64
"""Regions that go through the last stage at once; bounds memory."""


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a bottom-up detector; by default those of the published one.

    Attributes
    ----------
    blocks : (int, int, int)
        Of the stages res2, res3 and res4.
    stem, width, outputs : int
        Channels of the stem, and of the bottlenecks and outputs of res2; they double by stage.
    hidden : int
        Channels of the proposal network.
    anchors : int
        Anchors of a cell.
    classes, attributes : int
        Without the background and "no attribute"; 0 attributes: no attribute head.
    """

    blocks: tuple[int, int, int] = (3, 4, 23)
    stem: int = 64
    width: int = 64
    outputs: int = 256
    hidden: int = 512
    anchors: int = 12
    classes: int = 1600
    attributes: int = 400

    @property
    def dim(self) -> int:
        """Numbers of a region's feature."""
        return 8 * self.outputs

    def check_anchors(self, anchor_sizes: Sequence[float]) -> None:
        """Refuse weights of a detector with other anchors."""
        if len(anchor_sizes) * len(RATIOS) != self.anchors:
            raise CapscopeError(
                f"the weights have {self.anchors} anchors a cell, not {len(RATIOS)} of each of "
                f"{len(anchor_sizes)} sizes: they are of another detector"
            )

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Dimensions:
        """Read the sizes off published weights."""
        try:
            numbers = [
                {name.split(".")[2] for name in weights if name.startswith(f"backbone.res{s}.")}
                for s in (2, 3, 4)
            ]
            attributes = weights.get(f"{PREDICTOR}.attr_score.weight")
            return cls(
                blocks=(len(numbers[0]), len(numbers[1]), len(numbers[2])),
                stem=len(weights["backbone.stem.conv1.weight"]),
                width=len(weights["backbone.res2.0.conv1.weight"]),
                outputs=len(weights["backbone.res2.0.conv3.weight"]),
                hidden=len(weights["proposal_generator.rpn_head.conv.weight"]),
                anchors=len(weights["proposal_generator.rpn_head.objectness_logits.weight"]),
                classes=len(weights[f"{PREDICTOR}.cls_score.weight"]) - 1,
                attributes=0 if attributes is None else len(attributes) - 1,
            )
        except KeyError as error:
            raise CapscopeError(
                f"no weights of a bottom-up detector: {error} is missing"
            ) from error


PREDICTOR = "roi_heads.box_predictor"


class Backbone(nn.Module):
    """Stem and stages up to res4: stride 16."""

    def __init__(self, sizes: Dimensions, padded_pool: bool) -> None:
        super().__init__()
        self.stem = Stem(sizes.stem, padded_pool)
        width, outputs = sizes.width, sizes.outputs
        self.res2 = stage(sizes.blocks[0], sizes.stem, width, outputs, stride=1)
        self.res3 = stage(sizes.blocks[1], outputs, 2 * width, 2 * outputs, stride=2)
        self.res4 = stage(sizes.blocks[2], 2 * outputs, 4 * width, 4 * outputs, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the maps (B, 4 * outputs, H/16, W/16)."""
        maps: Tensor = self.res4(self.res3(self.res2(self.stem(images))))
        return maps


class ProposalHead(nn.Module):
    """Says of each anchor whether it shows an object, and how to move it."""

    def __init__(self, sizes: Dimensions) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * sizes.outputs, sizes.hidden, 3, padding=1)
        self.objectness_logits = nn.Conv2d(sizes.hidden, sizes.anchors, 1)
        self.anchor_deltas = nn.Conv2d(sizes.hidden, 4 * sizes.anchors, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, A, h, w) and deltas (B, 4A, h, w)."""
        hidden = functional.relu_(self.conv(maps))
        return self.objectness_logits(hidden), self.anchor_deltas(hidden)


def select_proposals(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: Size,
    *,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor]:
    """Return the proposals (R, 4) of one image with their logits (R,), best first.

    Parameters
    ----------
    logits, deltas, anchors : Tensor (N,), (N, 4), (N, 4)
    size : (height, width)
        Proposals are clipped to it; those without area are dropped.
    before, after : int
        How many are kept before and after non-maximum suppression.
    """
    logits, order = logits.sort(descending=True, stable=True)
    logits, order = logits[:before], order[:before]
    boxes = clip(decode(anchors[order], deltas[order], (1.0, 1.0, 1.0, 1.0)), size)
    some = not_empty(boxes)
    boxes, logits = boxes[some], logits[some]
    kept = nms(boxes, logits, 0.7)[:after]
    return boxes[kept], logits[kept]


class BottomUpNetwork(nn.Module):
    """A `Backend` on torchvision's operations.

    Parameters
    ----------
    sizes : Dimensions
    prepare : Preparation
    anchor_sizes : sequence of float
        Square roots of the anchors' areas, in pixels.
    before, proposals : int
        Proposals before and after non-maximum suppression.
    padded_pool : bool
        Pad the first pooling, which the Caffe original does not.
    """

    def __init__(
        self,
        sizes: Dimensions,
        prepare: Preparation,
        *,
        anchor_sizes: Sequence[float] = ANCHOR_SIZES,
        before: int = 6000,
        proposals: int = 300,
        padded_pool: bool = False,
    ) -> None:
        super().__init__()
        sizes.check_anchors(anchor_sizes)
        self.dim, self.attributes, self.prepare = sizes.dim, sizes.attributes, prepare
        self.precision = "float32"
        self.anchor_sizes, self.before, self.proposals = tuple(anchor_sizes), before, proposals
        self.backbone = Backbone(sizes, padded_pool)
        self.proposal_generator = nn.ModuleDict({"rpn_head": ProposalHead(sizes)})
        # The last stage keeps its 14 x 14 cells: dilation 2 in place of stride 2.
        res5 = stage(3, sizes.dim // 2, 8 * sizes.width, sizes.dim, stride=1, dilation=2)
        predictor = Predictor(sizes.dim, sizes.classes, sizes.attributes)
        self.roi_heads = nn.ModuleDict({"res5": res5, "box_predictor": predictor})

    def bucket(self, size: Size) -> Size:
        """Return the size that images of this size get."""
        return self.prepare.size(size)

    def maps(self, images: Tensor) -> Tensor:
        """Return the maps (B, C, h, w) of res4 for images (B, 3, H, W)."""
        with arithmetic(self.precision, images.device):
            maps: Tensor = self.backbone(images)
        return maps.float()

    def propose(self, maps: Tensor, size: Size) -> list[Tensor]:
        """Return each image's proposals (R, 4), best first."""
        return [boxes for boxes, _ in self.propose_with_logits(maps, size)]

    def propose_with_logits(self, maps: Tensor, size: Size) -> list[tuple[Tensor, Tensor]]:
        """Return each image's proposals (R, 4) and their logits (R,), best first."""
        logits, deltas = self.proposal_generator["rpn_head"](maps)
        anchors = anchor_boxes(self.anchor_sizes, (maps.shape[2], maps.shape[3])).to(maps.device)
        moves = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(len(maps), -1, 4)
        return [
            select_proposals(own, move, anchors, size, before=self.before, after=self.proposals)
            for own, move in zip(logits.permute(0, 2, 3, 1).flatten(1), moves, strict=True)
        ]

    def describe(self, maps: Tensor, boxes: Sequence[Tensor], size: Size) -> list[Found]:
        """Return what the heads say of each image's boxes."""
        numbered = [functional.pad(own, (1, 0), value=i) for i, own in enumerate(boxes)]
        chunks = torch.split(torch.cat(numbered), CHUNK)
        cells = torch.cat([self.cells(self.pooled(maps, chunk)) for chunk in chunks])
        return split_by_image(boxes, cells, *self.roi_heads["box_predictor"](cells))

    def pooled(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """Return the maximum in each of 14 x 14 cells of boxes (R, 5): (R, C, 14, 14).

        A box begins with the number of its image.
        """
        pooled: Tensor = roi_pool(maps, boxes, POOLED, 1 / STRIDE)
        return pooled

    def cells(self, pooled: Tensor) -> Tensor:
        """Return the features (R, D) of pooled regions: the mean of their deepest maps."""
        with arithmetic(self.precision, pooled.device):
            deep: Tensor = self.roi_heads["res5"](pooled)
        return deep.float().mean((2, 3))
