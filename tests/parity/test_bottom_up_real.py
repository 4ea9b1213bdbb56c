"""The published rules on real numbers: the authors' files, and their weights where they are."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from bottom_up import golden
from image_networks import ROOT
from torch import Tensor
from torchvision.ops import nms

from capscope.data.images import read_image
from capscope.features.detector.backend import Found
from capscope.features.detector.boxes import resized_size
from capscope.features.detector.build import bottom_up_network
from capscope.features.detector.network import Dimensions
from capscope.features.detector.published import read_published
from capscope.features.detector.region_detector import RegionDetector, Rule
from capscope.features.detector.selection import (
    PER_CLASS_FLOORS,
    PER_CLASS_OVERLAPS,
    nms_within_classes,
    proposals,
)
from capscope.tensors import fit

SHORT, LONG = 600, 1000
DATA = Path(os.environ.get("CAPSCOPE_DATA", ROOT / "../shared/data")) / "bu_tsv"
WEIGHTS = os.environ.get("CAPSCOPE_BOTTOM_UP_WEIGHTS")


def logits_of(scores: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return logits of probabilities that are `scores` at `classes`, the rest at the background."""
    probabilities = torch.full((len(scores), count + 1), 1e-12)
    probabilities[torch.arange(len(scores)), classes] = scores
    probabilities[:, -1] = 1 - scores
    return probabilities.log()


def test_real_boxes_are_proposals_of_images_of_the_stated_size() -> None:
    file = golden("real_caffe_tsv_sample")
    for boxes, (height, width) in zip(file["boxes"], file["hw"].tolist(), strict=True):
        size = resized_size((height, width), SHORT, LONG)
        scale = min(SHORT / min(height, width), LONG / max(height, width))
        for axis, side in ((0, size[1]), (1, size[0])):
            assert boxes[:, axis::2].min() >= 0
            # Caffe clips to the last pixel, and rounds half to even.
            assert boxes[:, axis::2].max() * scale <= side - 1 + 1e-2
        assert len(nms(boxes, torch.arange(len(boxes), 0, -1).float(), 0.7)) == len(boxes)


def test_real_regions_pass_the_rule_with_their_classes_and_scores() -> None:
    file = golden("real_caffe_tsv_sample")
    columns = (file[name] for name in ("boxes", "objects_id", "objects_conf", "hw"))
    for boxes, classes, scores, hw in zip(*columns, strict=True):
        raw_size = hw.tolist()
        count = int(classes.max()) + 1
        empty = torch.zeros(len(boxes), 0)
        given = Found(boxes, empty, logits_of(scores, classes, count), empty, None)
        for least, most in ((len(boxes), len(boxes)), (10, 100)):
            chosen = proposals(given, raw_size, raw_size, least=least, most=most, inclusive=True)
            torch.testing.assert_close(chosen.scores, scores[chosen.rows], rtol=0, atol=1e-5)
            assert chosen.classes.equal(classes[chosen.rows])
            assert len(chosen.rows.unique()) == len(chosen.rows)
            assert least <= len(chosen.rows) <= most


def test_printed_detections_of_the_real_weights_follow_the_rule() -> None:
    file = golden("real_model_notebook_outputs")
    height, width = file.meta["raw_hw"]
    assert list(resized_size((height, width), 800, 1333)) == file.meta["resized_hw"]
    boxes, scores, classes = (file[f"noattr_{name}"] for name in ("boxes", "scores", "classes"))
    assert scores.equal(scores.sort(descending=True).values)
    assert scores.min() > min(PER_CLASS_FLOORS)
    assert len(boxes) == file.meta["noattr"]["kept"]
    survivors = [nms_within_classes(boxes, scores, classes, t) for t in PER_CLASS_OVERLAPS]
    assert any(len(kept) == len(boxes) for kept in survivors)
    for name in ("attr_boxes", "noattr_boxes"):
        extent = torch.tensor([width, height, width, height])
        assert ((file[name] >= 0) & (file[name] <= extent)).all()


@pytest.mark.slow
@pytest.mark.skipif(WEIGHTS is None, reason="CAPSCOPE_BOTTOM_UP_WEIGHTS names no real weights")
def test_real_weights_give_the_real_features_of_real_boxes() -> None:
    """The authors' boxes are proposals, so what is pooled at them should be their features."""
    assert WEIGHTS is not None
    state = read_published(Path(WEIGHTS))
    config = {"backend": "torchvision", "short_side": SHORT, "long_side": LONG, "proposals": 300}
    network = bottom_up_network(Dimensions.of(state), config)
    fit(network, state, WEIGHTS)
    detector = RegionDetector(network, Rule(), {})
    file = golden("real_caffe_tsv_sample")
    for number, name in enumerate(file.arrays["img_id"]):
        path = DATA / f"{name}.jpg"
        if not path.exists():
            pytest.skip(f"{path} is not here (CAPSCOPE_DATA names another folder)")
        (first,) = file.keys("features_first")
        expected = file["features_first" + first][number]
        height, width = file["hw"][number].tolist()
        unit = file["boxes"][number, : len(expected)] / torch.tensor([width, height] * 2)
        (regions,) = detector.describe([np.asarray(read_image(path))], [unit])
        similarity = torch.cosine_similarity(regions.cells, expected)
        assert similarity.min() > 0.98
