"""torchvision's COCO detector as a source of regions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_region_detector import SETTINGS, assert_same
from toy_detector import pictures, settling

import capscope.features.detector.build as build
from capscope.errors import CapscopeError
from capscope.features.detector.boxes import rescale
from capscope.features.detector.coco import CLASS_NAMES, CocoNetwork
from capscope.features.detector.region_detector import RegionDetector, Rule
from capscope.features.detector.selection import per_class
from capscope.features.extractor import build_detector, load_extractor
from capscope.tensors import write_tensors

pytestmark = pytest.mark.slow  # its 41 million weights take a second to draw


@pytest.fixture(scope="module")
def network() -> CocoNetwork:
    torch.manual_seed(0)
    made = CocoNetwork(64, 128, proposals=30).eval().requires_grad_(False)
    torch.nn.init.normal_(made.model.roi_heads.box_predictor.cls_score.weight, std=1.0)
    for parameter in made.model.backbone.fpn.parameters():
        parameter.mul_(0.2)  # random maps are larger than trained ones, and rounding with them
    with settling(made):
        made.maps(made.prepare(pictures([(40, 60)])[0])[None])
    return made


def test_the_last_step_is_torchvision_s_own(network: CocoNetwork) -> None:
    (image,) = pictures([(40, 60)])
    heads = network.model.roi_heads
    heads.score_thresh, heads.nms_thresh = 0.02, 0.5
    with torch.inference_mode():
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) / 255
        (expected,) = network.model([pixels])
        inputs = network.prepare(image)[None]
        size = inputs.shape[2], inputs.shape[3]
        maps = network.maps(inputs)
        (found,) = network.describe(maps, network.propose(maps, size), size)
        chosen = per_class(found, size, least=100, most=100, floors=(0.02,), overlaps=(0.5,))
    assert len(chosen.rows) > 10
    torch.testing.assert_close(chosen.scores, expected["scores"], rtol=0, atol=1e-4)
    assert chosen.classes.add(1).equal(expected["labels"])
    boxes = rescale(chosen.boxes, size, (40, 60))
    torch.testing.assert_close(boxes, expected["boxes"], rtol=0, atol=1e-2)


def test_images_become_as_large_as_torchvision_makes_them(network: CocoNetwork) -> None:
    for size in ((40, 60), (61, 37), (480, 640), (200, 30), (99, 100)):
        (image,) = pictures([size])
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) / 255
        expected, _ = network.model.transform.resize(network.model.transform.normalize(pixels))
        torch.testing.assert_close(network.prepare(image), expected, rtol=0, atol=1e-6)
        assert network.bucket(size) == tuple(expected.shape[1:])


def test_half_precision_is_for_convolutions(network: CocoNetwork) -> None:
    rule = Rule("proposals", 1, 5)
    detector = RegionDetector(network, rule, {}, device="cpu", precision="bfloat16")
    (found,) = detector.detect(pictures([(40, 60)]))
    network.precision = "float32"
    assert found.cells.dtype == torch.float32
    assert found.cells.isfinite().all()


def test_a_thread_of_pixels_is_no_error(network: CocoNetwork) -> None:
    rule = Rule("proposals", 1, 5)
    (found,) = RegionDetector(network, rule, {}, device="cpu").detect(pictures([(1, 500)]))
    assert found.cells.isfinite().all()


def test_a_batch_gives_what_one_at_a_time_gives(network: CocoNetwork) -> None:
    images = pictures([(40, 60), (60, 40), (40, 60), (40, 60)])
    rule = Rule("best_class", 5, 10)
    together = RegionDetector(network, rule, {}, batch_size=4, device="cpu").detect(images)
    alone = RegionDetector(network, rule, {}, device="cpu")
    for image, found in zip(images, together, strict=True):
        expected = alone.detect([image])[0]
        assert_same(found, expected, 1e-4 * float(expected.cells.max()))
        assert found.cells.shape[1] == network.dim
        assert found.attribute_ids is None


def old_name(name: str) -> str:
    """Return a name as in torchvision's file, which is older than its code."""
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name)


def test_weights_from_a_file_come_back_from_a_folder(network: CocoNetwork, tmp_path: Path) -> None:
    state = {old_name(name): tensor for name, tensor in network.model.state_dict().items()}
    assert set(state) != set(network.model.state_dict())
    path = tmp_path / "coco.safetensors"
    write_tensors(path, state)
    settings: dict[str, Any] = {**SETTINGS, "network": "coco"}
    detector = build_detector({**settings, "weights": str(path)})
    assert isinstance(detector, RegionDetector)
    assert detector.spec()["class_names"] == list(CLASS_NAMES)
    detector.save(tmp_path / "run")
    again = load_extractor(tmp_path / "run")
    assert isinstance(again, RegionDetector)
    assert again.spec() == detector.spec()
    images = pictures([(40, 60)])
    assert_same(again.detect(images)[0], detector.detect(images)[0])


def test_without_a_network_the_error_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(build, "WEIGHTS_ADDRESS", "http://127.0.0.1:9/fasterrcnn-258fb6c6.pth")
    settings = {**SETTINGS, "network": "coco", "weights": "download"}
    with pytest.raises(CapscopeError, match=r"cannot download .*set features\.regions\.weights"):
        build_detector(settings)
