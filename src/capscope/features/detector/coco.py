"""torchvision's COCO detector, for users without Visual Genome weights: 90 classes, no attributes.

Faster R-CNN with a ResNet-50 and a feature pyramid (Lin et al., 2017). A region's feature is the
output of the two layers behind pooling, 1024 numbers, where the bottom-up detector has 2048.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, fasterrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from capscope.features.detector.backend import Found, split_by_image
from capscope.features.detector.boxes import Size
from capscope.features.detector.layers import FrozenNorm
from capscope.features.device import arithmetic

PUBLISHED = FasterRCNN_ResNet50_FPN_Weights.COCO_V1
WEIGHTS_ADDRESS: str = PUBLISHED.url
CLASS_NAMES: tuple[str, ...] = tuple(PUBLISHED.meta["categories"][1:])
"""Names by class id; "N/A" are numbers that COCO leaves out."""


class PyramidMaps(NamedTuple):
    """Maps of all levels, and the padded images that they are of."""

    levels: dict[str, Tensor]
    images: Tensor


class CocoNetwork(nn.Module):
    """A `Backend` on torchvision's whole detector, its layers and its preprocessing as they are.

    Parameters
    ----------
    short_side, long_side : int
        Bounds of the resized image; 800 and 1333 are torchvision's.
    proposals : int
        Of an image, at most.
    """

    attributes = 0
    precision = "float32"

    def __init__(self, short_side: int = 800, long_side: int = 1333, proposals: int = 300) -> None:
        super().__init__()
        self.short_side, self.long_side, self.proposals = short_side, long_side, proposals
        self.model = fasterrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            min_size=short_side,
            max_size=long_side,
            rpn_post_nms_top_n_test=proposals,
        )
        # The published weights were trained with frozen norms, and without their small constant.
        for module in list(self.model.backbone.body.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, FrozenNorm(child.num_features, eps=0.0))
        self.dim = int(self.model.roi_heads.box_head.fc7.out_features)

    def bucket(self, size: Size) -> Size:
        """Return the size that images of this size get, as torchvision rounds it."""
        scale = min(self.short_side / min(size), self.long_side / max(size))
        return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Return an RGB image (h, w, 3) normalised and resized: (3, H, W)."""
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        size = self.bucket((image.shape[0], image.shape[1]))
        normalised = self.model.transform.normalize(pixels)[None]
        resized = functional.interpolate(normalised, size, mode="bilinear", align_corners=False)
        return resized[0]

    def maps(self, images: Tensor) -> PyramidMaps:
        """Return the pyramid's maps of images (B, 3, H, W), padded to whole cells."""
        padded = self.model.transform.batch_images(list(images))
        padded = padded.contiguous(memory_format=torch.channels_last)
        with arithmetic(self.precision, images.device):
            levels = self.model.backbone(padded)
        return PyramidMaps({name: level.float() for name, level in levels.items()}, padded)

    def propose(self, maps: PyramidMaps, size: Size) -> list[Tensor]:
        """Return each image's proposals (R, 4), best first."""
        images = ImageList(maps.images, [size] * len(maps.images))
        proposals: list[Tensor] = self.model.rpn(images, maps.levels)[0]
        return proposals

    def describe(self, maps: PyramidMaps, boxes: Sequence[Tensor], size: Size) -> list[Found]:
        """Return what the heads say of each image's boxes."""
        heads = self.model.roi_heads
        pooled = heads.box_roi_pool(maps.levels, list(boxes), [size] * len(boxes))
        cells = heads.box_head(pooled)
        logits, deltas = heads.box_predictor(cells)
        # torchvision counts the background first, with box deltas of its own.
        logits = torch.cat([logits[:, 1:], logits[:, :1]], 1)
        return split_by_image(boxes, cells, logits, deltas[:, 4:], None)


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's published weights, which are older than the names of its layers."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)
        name = re.sub(r"(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)
        if not name.endswith("num_batches_tracked"):
            renamed[f"model.{name}"] = tensor
    return renamed
