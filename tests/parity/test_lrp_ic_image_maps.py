"""Maps from the encoder's grid to the pixels against lrp_ic's stored explanations."""

import re

import pytest
import torch
from image_networks import GOLDEN, Golden, assert_close, vgg
from torch import Tensor

from capscope.relevance.image import ImageRelevance
from capscope.relevance.image_rules import GRADIENT, GUIDED, LRP, ImageRules
from capscope.relevance.image_upscale import pyramid_expand

ENCODER = "w.img_encoder.encoder."
FILES = sorted(
    path.name
    for path in (GOLDEN / "lrp_ic").glob("*_explain.npz")
    if path.with_name("conv_stack.npz").exists()
)


@pytest.fixture(scope="module", params=FILES or ["gridtd_explain.npz"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(f"lrp_ic/{request.param}")


def tolerance(golden: Golden) -> float:
    return float(golden.meta.get("tolerance", 1e-4))


def methods(golden: Golden, pattern: str) -> list[str]:
    """Return the stored methods (one per head, where there are heads) that have image maps."""
    suffix = ".map_as_original"
    names = [k.removesuffix(suffix) for k in golden.arrays.files if k.endswith(suffix)]
    return [n for n in names if re.fullmatch(pattern + r"(\.h\d+)?", n)]


def pixel_maps(golden: Golden, method: str, rules: ImageRules) -> Tensor:
    """Return the maps (T, 3, H, W) of all words from the stored relevance of the grid."""
    network = vgg(golden.meta["dims"]["cfg"], golden.weights(ENCODER))
    found = ImageRelevance(network, rules).maps(golden["img"], golden[f"{method}.r_feat"][None])
    return found[0]


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    """Return Grad-CAM (T, h, w) of features (1, C, h, w) and their gradients (T, C, h, w)."""
    cam = (gradient.mean((2, 3), keepdim=True) * features).sum(1).clamp(min=0)
    return cam / (cam.amax((1, 2), keepdim=True) + 1e-6)


def features(golden: Golden) -> Tensor:
    network = vgg(golden.meta["dims"]["cfg"], golden.weights(ENCODER))
    with torch.no_grad():
        return network(golden["img"])


def test_relevance_of_each_word(golden: Golden) -> None:
    for method in methods(golden, "lrp"):
        if f"{method}.map_per_word" not in golden:
            continue
        found = pixel_maps(golden, method, LRP)
        words = golden[f"{method}.map_t"]
        assert_close(found[words], golden[f"{method}.map_per_word"], tolerance(golden))


def test_published_relevance_adds_up_over_words(golden: Golden) -> None:
    for method in methods(golden, "lrp"):
        found = pixel_maps(golden, method, LRP).cumsum(0)
        words = golden[f"{method}.map_t"]
        assert_close(found[words], golden[f"{method}.map_as_original"], tolerance(golden))


@pytest.mark.parametrize(
    ("method", "rules"), [("gradient", GRADIENT), ("GuidedBackpropagate", GUIDED)]
)
def test_gradients_of_each_word(golden: Golden, method: str, rules: ImageRules) -> None:
    for name in methods(golden, method):
        found = pixel_maps(golden, name, rules)[golden[f"{name}.map_t"]]
        assert_close(found, golden[f"{name}.map_as_original"], tolerance(golden))


def test_grad_cam(golden: Golden) -> None:
    for name in methods(golden, "GradCam"):
        found = grad_cam(features(golden), golden[f"{name}.r_feat"])[golden[f"{name}.map_t"]]
        assert_close(found.flatten(1), golden[f"{name}.map_as_original"], tolerance(golden))


def test_guided_grad_cam(golden: Golden) -> None:
    for name in methods(golden, "GuidedGradCam"):
        grid = features(golden)
        cam = grad_cam(grid, golden[f"{name}.r_feat"])
        factor = golden["img"].shape[-1] // grid.shape[-1]
        found = pixel_maps(golden, name, GUIDED) * pyramid_expand(cam, factor)[:, None]
        words = golden[f"{name}.map_t"]
        assert_close(found[words], golden[f"{name}.map_as_original"], tolerance(golden))
