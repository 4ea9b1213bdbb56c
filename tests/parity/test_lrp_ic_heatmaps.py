"""The published pictures of relevance against lrp_ic's fixtures."""

import re

import numpy as np
import pytest
import torch
from image_networks import Golden, assert_close

from capscope.relevance.image_upscale import pyramid_expand
from capscope.report.heatmaps import (
    correct_gamma,
    project,
    published_attention,
    published_heatmap,
)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("lrp_ic/lrp_layers.npz")


def tolerance(golden: Golden) -> float:
    return float(golden.meta.get("tolerance", 1e-5))


def test_gamma_projection_and_colours_of_relevance(golden: Golden) -> None:
    maps = golden["viz.x"].numpy()
    for name, function in (
        ("gamma", correct_gamma),
        ("project", project),
        ("heatmap", published_heatmap),
    ):
        assert_close(torch.tensor(function(maps)), golden[f"viz.{name}"], tolerance(golden))


def test_smooth_enlargement(golden: Golden) -> None:
    attention = golden["viz.att"]
    side = int(len(attention) ** 0.5)
    names = golden.keys("viz.pyr_")
    assert names
    for name in names:
        sigma, factor = re.fullmatch(r"(?:sigma(\d+)|default)_up(\d+)", name).groups()
        found = pyramid_expand(
            attention.reshape(side, side), int(factor), None if sigma is None else float(sigma)
        )
        assert_close(found, golden[f"viz.pyr_{name}"], tolerance(golden))


def test_attention_over_an_image(golden: Golden) -> None:
    attention = golden["viz.att"].numpy()
    side = int(len(attention) ** 0.5)
    image = golden["viz.att_img"].numpy()
    found = published_attention(image, attention.reshape(side, side)).astype(int)
    assert np.abs(found - golden["viz.att_overlay"].numpy()).max() <= 1
