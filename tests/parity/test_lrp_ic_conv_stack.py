"""Relevance, gradients and layer rules of the image part against lrp_ic's fixtures."""

import json
import re

import pytest
import torch
from image_networks import Golden, assert_close, residual, vgg
from torch import Tensor, nn

from capscope.relevance.image import ImageRelevance
from capscope.relevance.image_layers import Sum
from capscope.relevance.image_rules import (
    GRADIENT,
    GUIDED,
    LRP,
    LRP_PUBLISHED,
    AlphaBeta,
    ImageRules,
)

FOLDER = "lrp_ic"


@pytest.fixture(scope="module")
def stack() -> Golden:
    return Golden(f"{FOLDER}/conv_stack.npz")


@pytest.fixture(scope="module")
def stack2() -> Golden:
    return Golden(f"{FOLDER}/conv_stack2.npz")


@pytest.fixture(scope="module")
def layers() -> Golden:
    return Golden(f"{FOLDER}/lrp_layers.npz")


def tolerance(golden: Golden) -> float:
    return float(golden.meta.get("tolerance", 1e-5))


def same_output(network: nn.Module, x: Tensor, expected: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        assert_close(network(x), expected, tolerance)


def pixels(network: nn.Module, rules: ImageRules, x: Tensor, start: Tensor) -> Tensor:
    """Return the map of one word per image."""
    return ImageRelevance(network, rules).maps(x, start[:, None])[:, 0]


@pytest.mark.parametrize(
    ("start", "expected", "rules"),
    [
        ("R", "out_R", LRP),
        ("Rpos", "out_Rpos", LRP),
        ("R", "guided_R", GUIDED),
        ("R", "grad_R", GRADIENT),
    ],
)
def test_pixels_of_the_vgg_stack(
    stack: Golden, start: str, expected: str, rules: ImageRules
) -> None:
    network = vgg(stack.meta["cfg"], stack.weights("vgg.w."))
    found = pixels(network, rules, stack["vgg.x"], stack[f"vgg.{start}"])
    assert_close(found, stack[f"vgg.{expected}"], tolerance(stack))
    same_output(network, stack["vgg.x"], stack["vgg.y"], tolerance(stack))


def test_relevance_at_every_layer_of_the_vgg_stack(stack: Golden) -> None:
    network = vgg(stack.meta["cfg"], stack.weights("vgg.w."))
    crossing = ImageRelevance(network, LRP).layers(stack["vgg.x"], stack["vgg.R"][:, None])
    into = {reader: relevance[:, 0] for (_, reader), relevance in crossing.items()}
    names = [k for k in stack.keys("vgg.layer") if k.endswith(".R_in")]
    assert names
    for name in names:
        assert_close(into[name.removesuffix(".R_in")], stack[f"vgg.layer{name}"], tolerance(stack))


def test_repeated_calls_of_the_original_add_up(stack: Golden, stack2: Golden) -> None:
    network = vgg(stack.meta["cfg"], stack.weights("vgg.w."))
    found = pixels(network, LRP, stack["vgg.x"], stack["vgg.Rpos"])
    assert_close(2 * found, stack["vgg.out_second_call_same_sample"], tolerance(stack))
    assert_close(3 * found, stack2["vgg.out_third_call_same_sample"], tolerance(stack2))
    assert_close(found, stack2["vgg.out_after_clearing"], tolerance(stack2))


def test_pixels_of_the_residual_stack(stack: Golden, stack2: Golden) -> None:
    network = residual(stack.weights("res.w."))
    found = pixels(network, LRP_PUBLISHED, stack["res.x"], stack["res.y"])
    assert_close(found, stack["res.out_Rpos"], tolerance(stack))
    assert_close(found, stack2["res.out"], tolerance(stack2))


@pytest.mark.parametrize("case", ["res", "res2"])
def test_relevance_at_every_module_of_the_residual_stack(
    stack: Golden, stack2: Golden, case: str
) -> None:
    network = residual(stack.weights("res.w."))
    x = stack["res.x"] if case == "res" else stack2[f"{case}.x"]
    start = stack2["res.Rpos"] if case == "res" else stack2[f"{case}.R"]
    crossing = ImageRelevance(network, LRP_PUBLISHED).layers(x, start[:, None])
    into: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for (_, reader), relevance in crossing.items():
        module = re.sub(r"\.add(_\d+)?$", ".add", reader)
        (second if module in into else into)[module] = relevance[:, 0]
    names = stack2.keys(f"{case}.R_in.")
    assert names
    for name in names:
        assert_close(into[name], stack2[f"{case}.R_in.{name}"], tolerance(stack2))
    for name in stack2.keys(f"{case}.R_in2."):
        assert_close(second[name], stack2[f"{case}.R_in2.{name}"], tolerance(stack2))
    if case != "res":
        found = pixels(network, LRP_PUBLISHED, x, start)
        assert_close(found, stack2[f"{case}.out"], tolerance(stack2))
        same_output(network, x, stack2[f"{case}.y"], tolerance(stack2))


@pytest.mark.parametrize("place", ["at the image", "inside the network"])
def test_alpha_beta_convolutions(layers: Golden, place: str) -> None:
    cases = [k for k in layers.keys("conv_") if k.endswith(".params")]
    assert cases
    for case in (f"conv_{name.removesuffix('.params')}" for name in cases):
        params = json.loads(str(layers.arrays[f"{case}.params"]))
        w, b = layers[f"{case}.w"], layers[f"{case}.b"]
        conv = nn.Conv2d(
            w.shape[1] * params["groups"],
            w.shape[0],
            w.shape[2:],
            params["stride"],
            params["padding"],
            groups=params["groups"],
        )
        conv.load_state_dict({"weight": w, "bias": b})
        bias = "ignore" if params["ignore_bias"] else "published"
        rules = ImageRules(AlphaBeta(params["alpha"], params["beta"], bias))
        network = conv if place == "at the image" else nn.Sequential(nn.MaxPool2d(1), conv)
        found = pixels(network, rules, layers[f"{case}.x"], layers[f"{case}.R"])
        assert_close(found, layers[f"{case}.out"], tolerance(layers))
        same_output(conv, layers[f"{case}.x"], layers[f"{case}.y"], tolerance(layers))


def test_pools(layers: Golden) -> None:
    cases = {k.split(".")[0] for k in layers.arrays.files if re.match(r"(max|avg)pool", k)}
    assert cases
    for case in sorted(cases):
        kind, kernel, stride, padding = re.fullmatch(
            r"(max|avg)pool(\d+)(?:s(\d+))?(?:p(\d+))?", case
        ).groups()
        pool = nn.MaxPool2d if kind == "max" else nn.AvgPool2d
        network = pool(int(kernel), int(stride or kernel), int(padding or 0))
        found = pixels(nn.Sequential(network), LRP, layers[f"{case}.x"], layers[f"{case}.R"])
        assert_close(found, layers[f"{case}.out"], tolerance(layers))
        same_output(network, layers[f"{case}.x"], layers[f"{case}.y"], tolerance(layers))


@pytest.mark.parametrize("rule", ["epsilon", "identity"])
def test_batch_norm(layers: Golden, rule: str) -> None:
    norm = nn.BatchNorm2d(len(layers["bn.w"])).eval()
    names = {"weight": "w", "bias": "b", "running_mean": "mean", "running_var": "var"}
    norm.load_state_dict({k: layers[f"bn.{v}"] for k, v in names.items()}, strict=False)
    rules = ImageRules(batch_norm=rule)
    found = pixels(nn.Sequential(norm), rules, layers["bn.x"], layers["bn.R"])
    assert_close(found, layers[f"bn_{rule}.out"], tolerance(layers))
    same_output(norm, layers["bn.x"], layers["bn.y"], tolerance(layers))


def test_residual_sum(layers: Golden) -> None:
    one, other, start = layers["add.x1"], layers["add.x2"], layers["add.R"]
    output, back = Sum(LRP.sum_epsilon, rectified=False)(one, other)
    shares = back(start / output)
    for x, share, name in zip((one, other), shares, ("out1", "out2"), strict=True):
        reached = output != 0  # the original halves relevance of 0 + 0, where no pixel can get it
        assert_close((x * share)[reached], layers[f"add.{name}"][reached], tolerance(layers))
