"""The bottom-up detector, stage by stage, against the original program."""

import base64

import numpy as np
import pytest
import torch
from bottom_up import (
    CASES,
    FEATURES,
    FOLDER,
    LOGITS,
    MAPS,
    PIXELS,
    PROBABILITIES,
    found,
    golden,
    network,
    rgb,
    rows,
    same,
    sizes,
    with_area,
)
from image_networks import Golden
from torch.nn.functional import pad

from capscope.features.detector.boxes import anchor_boxes, decode, resized_size
from capscope.features.detector.inputs import MEAN_BGR, Preparation
from capscope.features.detector.network import BottomUpNetwork
from capscope.features.detector.region_detector import RegionDetector, Rule
from capscope.features.detector.selection import attributes_of

BOX_WEIGHTS = (10, 10, 5, 5)


@pytest.fixture(params=CASES)
def file(request: pytest.FixtureRequest) -> Golden:
    return golden(request.param)


@pytest.fixture
def original(file: Golden) -> BottomUpNetwork:
    made = network(file)
    assert isinstance(made, BottomUpNetwork)
    return made


def test_sizes_after_resizing() -> None:
    file = golden("resize_sizes")
    tables = [name for name in file.arrays.files if name.startswith("new_hw_")]
    assert tables
    for name in tables:
        short, long = map(int, name.split("_")[-2:])
        for before, after in zip(file.arrays["hw"], file.arrays[name], strict=True):
            assert resized_size(tuple(before.tolist()), short, long) == tuple(after.tolist())


def test_images_are_resized_and_shifted_as_in_the_original(file: Golden) -> None:
    prepare = Preparation(file.meta["min_size"], file.meta["max_size"])
    np.testing.assert_array_equal(prepare.resized(rgb(file))[..., ::-1], file["image_resized_bgr"])
    assert prepare(rgb(file)).equal(file["input"][0])
    assert list(MEAN_BGR) == file.meta["pixel_mean_bgr"]


def test_maps_of_stem_and_backbone(file: Golden, original: BottomUpNetwork) -> None:
    stem = original.backbone.stem(file["input"])
    assert list(stem.shape) == file["stem_shape"].tolist()
    for key in file.keys("stem_ch"):
        shown = file["stem_ch" + key]
        same("stem", stem[:, : shown.shape[1]], shown, MAPS)
    same("c4", original.maps(file["input"]), file["c4"], MAPS)
    if "c4_pad1_maxpool" in file:
        padded = network(file, padded_pool=True)
        same("c4_pad1_maxpool", padded.maps(file["input"]), file["c4_pad1_maxpool"], MAPS)


def test_proposals(file: Golden, original: BottomUpNetwork) -> None:
    logits, deltas = original.proposal_generator["rpn_head"](file["c4"])
    same("rpn_logits", logits, file["rpn_logits"], MAPS)
    same("rpn_deltas", deltas, file["rpn_deltas"], MAPS)
    if "anchors" in file:
        grid = file["c4"].shape[2], file["c4"].shape[3]
        assert anchor_boxes(file.meta["anchor_sizes"], grid).equal(file["anchors"])
    ((boxes, scores),) = original.propose_with_logits(file["c4"], sizes(file)[0])
    same("proposal_boxes", boxes, file["proposal_boxes"], PIXELS)
    same("proposal_logits", scores, file["proposal_logits"], MAPS)


def test_cell_anchors_in_the_weights_are_those_that_are_computed() -> None:
    file = golden("weights")
    name = "proposal_generator.anchor_generator.cell_anchors.0"
    if name in file:
        same(name, anchor_boxes(file.meta["anchor_sizes"], (1, 1)), file[name], 1e-5)


def test_regions_are_pooled_and_described(file: Golden, original: BottomUpNetwork) -> None:
    rois = pad(file["proposal_boxes"], (1, 0))
    (pooled_name,) = file.keys("roi_pooled_first") or [""]
    if pooled_name:
        first = file["roi_pooled_first" + pooled_name]
        pooled = original.pooled(file["c4"], rois[: len(first)])
        same("roi_pooled", pooled, first, MAPS)
        (deep_name,) = file.keys("res5_first")
        deep = file["res5_first" + deep_name]
        same("res5", original.roi_heads["res5"](pooled[: len(deep)]), deep, FEATURES)
    (one,) = original.describe(file["c4"], [file["proposal_boxes"]], sizes(file)[0])
    same("pooled", one.cells, file["pooled"], FEATURES)
    same("cls_logits", one.class_logits, file["cls_logits"], LOGITS)
    same("box_deltas", one.deltas, file["box_deltas"], LOGITS)
    assert one.attribute_logits is not None
    same("attr_logits", one.attribute_logits, file["attr_logits"], LOGITS)
    assert one.class_logits.argmax(1).equal(file["embedded_class"])


def test_probabilities_boxes_and_attributes_of_all_proposals(file: Golden) -> None:
    given = found(file)
    same("cls_probs", given.class_logits.softmax(1), file["cls_probs"], PROBABILITIES)
    for kind, expected in enumerate(file["boxes_regressed"].split(4, 1)):
        boxes = decode(given.boxes, given.deltas[:, 4 * kind : 4 * kind + 4], BOX_WEIGHTS)
        same(f"boxes of class {kind}", boxes, expected, PIXELS)
    ids, scores = attributes_of(given, torch.arange(len(given.boxes)), count_none=False)
    assert ids.equal(file["attr_id"])
    same("attr_prob_max", scores, file["attr_prob_max"], PROBABILITIES)


def test_given_boxes_are_described(file: Golden, original: BottomUpNetwork) -> None:
    size, (height, width) = sizes(file)
    (one,) = original.describe(file["c4"], [file["given_boxes_resized"]], size)
    assert one.attribute_logits is not None
    same("given_features", one.cells, file["given_features"], FEATURES)
    same("given_cls_logits", one.class_logits, file["given_cls_logits"], LOGITS)
    same("given_attr_logits", one.attribute_logits, file["given_attr_logits"], LOGITS)
    detector = RegionDetector(original, Rule("per_class"), {}, device="cpu")
    unit = file["s2_boxes"] / torch.tensor([width, height, width, height])
    (regions,) = detector.describe([rgb(file)], [unit])
    same("given features of the detector", regions.cells, file["given_features"], FEATURES)
    assert regions.class_ids is not None
    assert regions.class_ids.equal(file["given_cls_logits"][:, :-1].argmax(1))


@pytest.mark.parametrize(("prefix", "procedure"), [("s1", "best_class"), ("s2", "per_class")])
def test_regions_from_pixels(
    file: Golden, original: BottomUpNetwork, prefix: str, procedure: str
) -> None:
    rule = Rule(procedure, file.meta["min_boxes"], file.meta["max_boxes"], parity=True)
    (regions,) = RegionDetector(original, rule, {}, device="cpu").detect([rgb(file)])
    own = {key: file[f"{prefix}_{key}"] for key in file.keys(f"{prefix}_")}
    features = own.get("features", own.get("h5_image_features"))
    assert features is not None
    assert regions.class_ids is not None
    assert regions.scores is not None
    assert regions.attribute_ids is not None
    some = with_area(file, own["boxes_resized"])
    same("features", regions.cells, features[some], FEATURES)
    same("boxes", regions.pixel_boxes(), own["boxes"], PIXELS)
    same("boxes", regions.pixel_boxes(), own.get("h5_image_boxes", own["boxes"]), PIXELS)
    assert regions.class_ids.equal(rows(own["classes"], some))
    same("scores", regions.scores, rows(own["scores"], some), PROBABILITIES)
    if "attr_classes" in own:
        assert regions.attribute_ids.equal(own["attr_classes"])
        assert regions.attribute_scores is not None
        same("attributes", regions.attribute_scores, own["attr_scores"], PROBABILITIES)


def test_the_published_padded_batch() -> None:
    """Padding changes what is proposed, so it is not offered; the network computes it all the same.

    The first program's features of a padded batch are those of a network that sees the padding.
    """
    file = golden("batch_padded")
    whole = network(file)
    maps = whole.maps(file["batch_input"])
    same("c4", maps, file["c4"], MAPS)
    for number, size in enumerate(file["image_sizes"].tolist()):
        height, width = size
        own = maps[number : number + 1]
        ((proposals, logits),) = whole.propose_with_logits(own, (height, width))
        same("proposals", proposals, file[f"proposal_boxes_{number}"], PIXELS)
        same("logits", logits, file[f"proposal_logits_{number}"], MAPS)
        (one,) = whole.describe(own, [proposals], (height, width))
        rule = Rule("best_class", file.meta["min_boxes"], file.meta["max_boxes"])
        chosen = rule.select(one, (height, width), (height, width))
        assert chosen.rows.equal(file[f"s1_index_{number}"])
        assert chosen.classes.equal(file[f"s1_classes_{number}"])
        overlaps = [attempt.overlap for attempt in chosen.tries]
        assert overlaps == file[f"s1_nms_thresholds_tried_{number}"].tolist()
        same("scores", chosen.scores, file[f"s1_scores_{number}"], PROBABILITIES)
        same("features", one.cells[chosen.rows], file[f"s1_features_{number}"], FEATURES)
        alone = golden(next(case for case in CASES if case.startswith(f"image{number}_")))
        assert sizes(alone)[0] == (height, width)
        boxes = rule.raw_boxes(chosen, *sizes(alone))
        same("boxes", boxes, file[f"s1_boxes_{number}"], PIXELS)


def test_the_file_that_the_first_program_writes() -> None:
    path = FOLDER / "script1_obj36.tsv"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here")
    lines = path.read_bytes().decode("ascii").splitlines()
    for line in lines:
        row = dict(zip(TSV, line.split("\t"), strict=True))
        file = golden(row["img_id"].replace("img", "image") + "_normal")
        count, (_, (height, width)) = int(row["num_boxes"]), sizes(file)
        assert (int(row["img_h"]), int(row["img_w"])) == (height, width)
        rule = Rule("best_class", file.meta["min_boxes"], file.meta["max_boxes"])
        (regions,) = RegionDetector(network(file), rule, {}, device="cpu").detect([rgb(file)])
        assert regions.class_ids is not None
        assert regions.scores is not None
        assert len(regions.cells) == count
        assert regions.class_ids.equal(column(row["objects_id"], np.int64))
        scores = column(row["objects_conf"], np.float32)
        same("objects_conf", regions.scores, scores, PROBABILITIES)
        boxes = column(row["boxes"], np.float32).reshape(count, 4)
        same("boxes", regions.pixel_boxes(), boxes, PIXELS)
        features = column(row["features"], np.float32).reshape(-1, regions.cells.shape[1])
        some = with_area(file, file["s1_boxes_resized"])
        same("features", regions.cells, features[some], FEATURES)


TSV = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf"),
    *("attrs_id", "attrs_conf", "num_boxes", "boxes", "features"),
)


def column(text: str, dtype: type) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype).copy())
