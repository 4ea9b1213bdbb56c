"""The bottom-up detector on detectron2 finds what it finds on torchvision."""

from __future__ import annotations

import pytest
import torch
from toy_detector import SIZES, TOY, pictures, toy_network

pytest.importorskip("detectron2", reason="detectron2 is not installed (envs/detectron2.yaml)")

from capscope.features.detector.detectron2_backend import Detectron2Network
from capscope.features.detector.inputs import Preparation
from capscope.features.detector.network import BottomUpNetwork, Dimensions
from capscope.features.detector.region_detector import PROCEDURES, RegionDetector, Rule
from capscope.tensors import fit


def twin(network: BottomUpNetwork, sizes: Dimensions) -> Detectron2Network:
    """Return the same network on detectron2's layers."""
    made = Detectron2Network(
        sizes,
        Preparation(network.prepare.short_side, network.prepare.long_side),
        anchor_sizes=SIZES,
        proposals=network.proposals,
    )
    fit(made, network.state_dict(), "the toy")
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("attributes", [0, 5])
def test_every_stage_is_the_same(seed: int, attributes: int) -> None:
    sizes = Dimensions(**{**vars(TOY), "attributes": attributes})
    ours = toy_network(sizes, seed=seed)
    theirs = twin(ours, sizes)
    inputs = torch.stack([ours.prepare(image) for image in pictures([(48, 64)] * 2, seed)])
    size = inputs.shape[2], inputs.shape[3]
    maps, their_maps = ours.maps(inputs), theirs.maps(inputs)
    torch.testing.assert_close(maps, their_maps)
    proposals = ours.propose(maps, size)
    for boxes, expected in zip(proposals, theirs.propose(their_maps, size), strict=True):
        torch.testing.assert_close(boxes, expected, rtol=0, atol=1e-3)
    found, expected_found = (n.describe(maps, proposals, size) for n in (ours, theirs))
    for one, other in zip(found, expected_found, strict=True):
        assert (one.attribute_logits is None) == (attributes == 0)
        for part, expected in zip(one, other, strict=True):
            if part is not None:
                torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_both_find_the_same_regions(procedure: str) -> None:
    ours = toy_network()
    images = pictures([(48, 64), (64, 48), (48, 64)])
    rule = Rule(procedure, 10, 20)
    found, expected = (
        RegionDetector(network, rule, {}, batch_size=2, device="cpu").detect(images)
        for network in (ours, twin(ours, TOY))
    )
    for one, other in zip(found, expected, strict=True):
        assert len(one.cells) >= 10
        for part, same in zip(one, other, strict=True):
            if isinstance(part, torch.Tensor):
                torch.testing.assert_close(part, same, rtol=1e-4, atol=1e-4)
            else:
                assert part == same


def test_both_keep_weights_under_the_same_names() -> None:
    ours = toy_network()
    assert set(twin(ours, TOY).state_dict()) == set(ours.state_dict())
