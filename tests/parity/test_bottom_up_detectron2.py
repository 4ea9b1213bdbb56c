"""The detectron2 back end against the original program, where detectron2 is installed."""

import pytest
from bottom_up import CASES, FEATURES, LOGITS, MAPS, PIXELS, golden, network, rgb, same, sizes

pytest.importorskip("detectron2", reason="detectron2 is not installed (envs/detectron2.yaml)")

from capscope.features.detector.detectron2_backend import Detectron2Network
from capscope.features.detector.region_detector import RegionDetector, Rule


@pytest.mark.parametrize("case", CASES)
def test_every_stage_and_the_regions(case: str) -> None:
    file = golden(case)
    size = sizes(file)[0]
    theirs = network(file, Detectron2Network)
    maps = theirs.maps(file["input"])
    same("c4", maps, file["c4"], MAPS)
    (boxes,) = theirs.propose(file["c4"], size)
    same("proposal_boxes", boxes, file["proposal_boxes"], PIXELS)
    (found,) = theirs.describe(file["c4"], [file["proposal_boxes"]], size)
    same("pooled", found.cells, file["pooled"], FEATURES)
    same("cls_logits", found.class_logits, file["cls_logits"], LOGITS)
    same("box_deltas", found.deltas, file["box_deltas"], LOGITS)
    assert found.attribute_logits is not None
    same("attr_logits", found.attribute_logits, file["attr_logits"], LOGITS)
    if "c4_pad1_maxpool" in file:
        padded = network(file, Detectron2Network, padded_pool=True)
        same("c4_pad1_maxpool", padded.maps(file["input"]), file["c4_pad1_maxpool"], MAPS)
    rule = Rule("per_class", file.meta["min_boxes"], file.meta["max_boxes"], parity=True)
    (regions,) = RegionDetector(theirs, rule, {}, device="cpu").detect([rgb(file)])
    same("features", regions.cells, file["s2_h5_image_features"], FEATURES)
    same("boxes", regions.pixel_boxes(), file["s2_h5_image_boxes"], PIXELS)
