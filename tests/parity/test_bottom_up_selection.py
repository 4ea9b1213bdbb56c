"""The selection of regions against the original programs and the Caffe release's rule."""

import re

import pytest
import torch
from bottom_up import CASES, PIXELS, PROBABILITIES, found, golden, rows, same, sizes, with_area
from image_networks import Golden

from capscope.features.detector.boxes import rescale
from capscope.features.detector.region_detector import Rule
from capscope.features.detector.selection import (
    Selection,
    attributes_of,
    best_class,
    class_offset_nms,
    nms_within_classes,
    per_class,
    proposals,
    surviving_scores,
)


@pytest.fixture(params=CASES)
def file(request: pytest.FixtureRequest) -> Golden:
    return golden(request.param)


def check(file: Golden, prefix: str, chosen: Selection) -> None:
    own = {key: file[f"{prefix}_{key}"] for key in file.keys(f"{prefix}_")}
    size, raw_size = sizes(file)
    some = with_area(file, chosen.boxes)
    assert chosen.rows.equal(own["index"])
    assert rows(chosen.classes, some).equal(rows(own["classes"], some))
    assert [one.overlap for one in chosen.tries] == own["nms_thresholds_tried"].tolist()
    kept = own.get("kept_per_threshold", own.get("kept_per_try"))
    assert kept is not None
    assert [one.kept for one in chosen.tries] == kept.tolist()
    if "score_thresholds_tried" in own:
        assert [one.floor for one in chosen.tries] == own["score_thresholds_tried"].tolist()
    same("scores", rows(chosen.scores, some), rows(own["scores"], some), PROBABILITIES)
    same("boxes_resized", chosen.boxes, own["boxes_resized"], PIXELS)
    same("boxes", rescale(chosen.boxes, size, raw_size)[some], own["boxes"], PIXELS)


def test_each_proposal_with_its_best_class(file: Golden) -> None:
    bounds = {"least": file.meta["min_boxes"], "most": file.meta["max_boxes"]}
    check(file, "s1", best_class(found(file), sizes(file)[0], **bounds))


def test_pairs_of_proposal_and_class(file: Golden) -> None:
    bounds = {"least": file.meta["min_boxes"], "most": file.meta["max_boxes"]}
    chosen = per_class(found(file), sizes(file)[0], **bounds, rounded=True)
    check(file, "s2", chosen)
    ids, scores = attributes_of(found(file), chosen.rows, count_none=False)
    assert ids.equal(file["s2_attr_classes"])
    same("s2_attr_scores", scores, file["s2_attr_scores"], PROBABILITIES)


def test_the_plain_detector_is_one_try_of_pairs(file: Golden) -> None:
    """Detectron2's own output: score 0.2, overlap 0.6, the best 100."""
    size, raw_size = sizes(file)
    chosen = per_class(found(file), size, least=100, most=100, floors=(0.2,), overlaps=(0.6,))
    chosen = chosen.where(with_area(file, chosen.boxes))
    same("plain_boxes", rescale(chosen.boxes, size, raw_size), file["plain_boxes"], PIXELS)
    same("plain_scores", chosen.scores, file["plain_scores"], PROBABILITIES)
    assert chosen.classes.equal(file["plain_classes"])


def test_rounding_of_high_classes_is_reproduced_and_avoided() -> None:
    file = golden("batched_nms_rounding")
    given = file["boxes"], file["scores"], file["classes"]
    percents = [int(key) for key in file.keys("keep_offset_")]
    assert percents
    differs = []
    for percent in percents:
        rounded = class_offset_nms(*given, percent / 100)
        exact = nms_within_classes(*given, percent / 100)
        assert rounded.equal(file[f"keep_offset_{percent}"])
        assert exact.equal(file[f"keep_exact_{percent}"])
        if not rounded.equal(exact):
            differs.append(percent / 100)
    assert differs == file.meta["differs_at"]


def test_the_rule_of_the_caffe_release(file: Golden) -> None:
    stem = f"image{file.meta['image_index']}_{file.meta['case']}_"
    caffe = golden("caffe_style_selection")
    if stem + "max_conf" not in caffe:
        pytest.skip("this file holds no selection of the case")
    given = found(file)
    size, raw_size = sizes(file)
    probabilities = given.class_logits.softmax(1)[:, :-1]
    inclusive = caffe[stem + "boxes_raw"] + torch.tensor([0, 0, 1, 1])
    best = surviving_scores(inclusive, probabilities, 0.0)
    same("max_conf", best, caffe[stem + "max_conf"], 1e-6)
    names = [key.removesuffix("_keep") for key in caffe.keys(stem) if key.endswith("_keep")]
    assert names
    for name in names:
        numbers = [int(number) for number in re.findall(r"\d+", name)]
        exact = len(caffe[f"{stem}{name}_keep"])  # of "exact_count", which names no number
        least, most = (numbers or [exact])[0], (numbers or [exact])[-1]
        chosen = proposals(given, size, raw_size, least=least, most=most, inclusive=True)
        assert chosen.rows.equal(caffe[f"{stem}{name}_keep"]), name
        rule = Rule("proposals", least, most, parity=True)
        boxes = rule.raw_boxes(chosen, size, raw_size)
        same("boxes", boxes, caffe[stem + "boxes_raw"][chosen.rows], PIXELS)
        scores, classes = probabilities[chosen.rows].max(1)
        assert chosen.classes.equal(classes)
        assert chosen.scores.equal(scores)
