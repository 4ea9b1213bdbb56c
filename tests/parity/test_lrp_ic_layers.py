"""Single relevance rules of the original program: linear, sum, mean, decoder, normalisation."""

import re

import pytest
import torch
from image_networks import Golden
from original_captioners import close
from torch import nn

from capscope.relevance import operations as ops
from capscope.relevance.reference import (
    published_linear,
    published_mean,
    weighted_sum,
)
from capscope.relevance.reweighting import normalise_relevance
from capscope.relevance.rules import LRP

RELATIVE = 1e-5


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("lrp_ic/lrp_layers.npz")


def test_linear_rule_of_the_image_network(golden: Golden) -> None:
    cases = {key.split(".")[0] for key in golden.keys("linear_eps_")}
    assert cases
    for case in cases:
        name = f"linear_eps_{case}"
        bias = None if case == "ignorebias1" else golden[f"{name}.b"]
        found = published_linear(
            golden[f"{name}.x"], golden[f"{name}.w"], bias, golden[f"{name}.R"]
        )
        close(found, golden[f"{name}.out"], RELATIVE)
        y = golden[f"{name}.x"] @ golden[f"{name}.w"].T + golden[f"{name}.b"]
        close(y, golden[f"{name}.y"], RELATIVE)


def test_sums_and_means_stabilise_the_sum(golden: Golden) -> None:
    found = published_mean(golden["sumdim.x"], golden["sumdim.R"])
    close(found, golden["sumdim.out"], RELATIVE)
    close(found, golden["meandim.out"], RELATIVE)


def test_sums_of_exactly_zero(golden: Golden) -> None:
    more = Golden("lrp_ic/conv_stack2.npz")
    found = published_mean(more["meandim2.x"], more["meandim2.R"])
    close(found, more["meandim2.out"], RELATIVE)
    close(found, more["sumdim2.out"], RELATIVE)


def test_decoder_rule_of_the_twin_and_of_the_engine(golden: Golden) -> None:
    x, weight, relevance = golden["dec_eps.x"], golden["dec_eps.w"], golden["dec_eps.R"]
    epsilon = golden.meta["EPSILON"]
    twin = weighted_sum(x, weight, golden["dec_eps.y"], relevance, epsilon)
    close(twin, golden["dec_eps.out"], RELATIVE)
    close(weighted_sum(x, weight, weight @ x, relevance, epsilon), golden["dec_eps.out_noy"], 1e-5)

    # A multiplier cannot give relevance to an output of 0, which the fixture also tries.
    x, weight, relevance, y = (z.double() for z in (x, weight, relevance, golden["dec_eps.y"]))
    relevance = torch.where(y == 0, 0.0, relevance)
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(y - weight @ x)
    at = x.clone().requires_grad_()
    with ops.relevance_mode(LRP):
        found = ops.linear(layer, at)
    (multiplier,) = torch.autograd.grad(found, at, torch.where(y == 0, 0.0, relevance / y))
    close(x * multiplier, weighted_sum(x, weight, y, relevance, epsilon), RELATIVE)


def test_normalisation_at_temperatures(golden: Golden) -> None:
    temperatures = [m[1] for key in golden.keys("norm.") if (m := re.match(r"temp(.*)", key))]
    assert temperatures
    for temperature in temperatures:
        found = normalise_relevance(golden["norm.x"], float(temperature))
        close(found, golden[f"norm.temp{temperature}"], RELATIVE)
