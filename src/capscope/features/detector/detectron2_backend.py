"""The bottom-up detector on detectron2's own layers, the same network as `network`.

detectron2 is installed by ``envs/detectron2.yaml``; nothing else here needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_proposal_generator
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, Res5ROIHeads
from detectron2.structures import Boxes, ImageList
from torch import Tensor, nn
from torch.nn import functional

from capscope.errors import CapscopeError
from capscope.features.detector.backend import BOX_WEIGHTS, Found, split_by_image
from capscope.features.detector.boxes import RATIOS, Size
from capscope.features.detector.inputs import MEAN_BGR, Preparation
from capscope.features.detector.network import ANCHOR_SIZES, CHUNK, POOLED, Dimensions
from capscope.features.device import arithmetic

DEPTHS = {(3, 4, 6): 50, (3, 4, 23): 101, (3, 8, 36): 152}
MAPS = "res4"


class UnpaddedStem(BasicStem):  # type: ignore[misc]
    """The stem with Caffe's pooling: no padding, and a last window that may be cut off."""

    def forward(self, images: Tensor) -> Tensor:
        """Return maps (B, width, H/4, W/4)."""
        maps = functional.relu_(self.conv1(images))
        return functional.max_pool2d(maps, 3, 2, 0, ceil_mode=True)


class AttributePredictor(FastRCNNOutputLayers):  # type: ignore[misc]
    """detectron2's predictor of classes and boxes, and one of attributes beside it."""

    def __init__(self, cfg: CfgNode, shape: ShapeSpec, attributes: int) -> None:
        super().__init__(cfg, shape)
        dim, classes = shape.channels, cfg.MODEL.ROI_HEADS.NUM_CLASSES
        self.cls_embedding = nn.Embedding(classes + 1, dim // 8)
        self.fc_attr = nn.Linear(dim + dim // 8, dim // 4)
        self.attr_score = nn.Linear(dim // 4, attributes + 1)

    def attribute_logits(self, cells: Tensor, class_logits: Tensor) -> Tensor:
        """Return logits of attributes (R, A+1); detectron2 itself wants only the other two."""
        embedded = self.cls_embedding(class_logits.argmax(1))
        hidden = functional.relu(self.fc_attr(torch.cat([cells, embedded], 1)))
        logits: Tensor = self.attr_score(hidden)
        return logits


class Detectron2Network(nn.Module):
    """A `Backend` on detectron2; parameters as of `network.BottomUpNetwork`."""

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
        cfg = configuration(sizes, anchor_sizes, before, proposals)
        self.proposals, self.precision = proposals, "float32"
        self.dim, self.attributes, self.prepare = sizes.dim, sizes.attributes, prepare
        self.backbone = build_backbone(cfg)
        if not padded_pool:
            self.backbone.stem = UnpaddedStem(3, sizes.stem, norm=cfg.MODEL.RESNETS.NORM)
        shape = self.backbone.output_shape()
        self.proposal_generator = build_proposal_generator(cfg, shape)
        self.roi_heads = Res5ROIHeads(cfg, shape)
        for block in self.roi_heads.res5:
            block.conv2.padding = block.conv2.dilation = (2, 2)
            for convolution in (block.conv1, block.shortcut):
                if convolution is not None:
                    convolution.stride = (1, 1)
        if sizes.attributes:
            cells = ShapeSpec(channels=sizes.dim, height=1, width=1)
            self.roi_heads.box_predictor = AttributePredictor(cfg, cells, sizes.attributes)

    def bucket(self, size: Size) -> Size:
        """Return the size that images of this size get."""
        return self.prepare.size(size)

    def maps(self, images: Tensor) -> Tensor:
        """Return the maps (B, C, h, w) of res4 for images (B, 3, H, W)."""
        with arithmetic(self.precision, images.device):
            maps: Tensor = self.backbone(images)[MAPS]
        return maps.float()

    def propose(self, maps: Tensor, size: Size) -> list[Tensor]:
        """Return each image's proposals (R, 4), best first."""
        images = ImageList(maps, [size] * len(maps))
        found, _ = self.proposal_generator(images, {MAPS: maps})
        return [one.proposal_boxes.tensor for one in found]

    def describe(self, maps: Tensor, boxes: Sequence[Tensor], size: Size) -> list[Found]:
        """Return what the heads say of each image's boxes."""
        cells = []
        for number, own in enumerate(boxes):
            for chunk in torch.split(own, CHUNK):
                pooled = self.roi_heads.pooler([maps[number : number + 1]], [Boxes(chunk)])
                with arithmetic(self.precision, maps.device):
                    deep = self.roi_heads.res5(pooled)
                cells.append(deep.float().mean((2, 3)))
        whole = torch.cat(cells)
        predictor = self.roi_heads.box_predictor
        class_logits, deltas = predictor(whole)
        known = predictor.attribute_logits(whole, class_logits) if self.attributes else None
        return split_by_image(boxes, whole, class_logits, deltas, known)


def configuration(
    sizes: Dimensions, anchor_sizes: Sequence[float], before: int, proposals: int
) -> CfgNode:
    """Return detectron2's configuration of the network; what is not named is its default."""
    if sizes.blocks not in DEPTHS:
        raise CapscopeError(f"detectron2 has no residual network with {sizes.blocks} blocks")
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = False
    cfg.MODEL.PIXEL_MEAN = list(MEAN_BGR)
    cfg.MODEL.PIXEL_STD = [1.0, 1.0, 1.0]
    cfg.MODEL.RESNETS.DEPTH = DEPTHS[sizes.blocks]
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = sizes.stem
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = sizes.width
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = sizes.outputs
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [list(anchor_sizes)]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(RATIOS)]
    cfg.MODEL.RPN.CONV_DIMS = [sizes.hidden]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = before
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = proposals
    cfg.MODEL.RPN.NMS_THRESH = 0.7
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = sizes.classes
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIPool"
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = POOLED
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = BOX_WEIGHTS
    return cfg
