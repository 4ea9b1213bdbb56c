"""The image part against its slow twins, zennit and autograd."""

import pytest
import torch
import torchvision
import zennit.canonizers
import zennit.composites
import zennit.core
import zennit.rules
import zennit.torchvision
import zennit.types
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.relevance import image_reference
from capscope.relevance.image import ImageRelevance
from capscope.relevance.image_graph import trace
from capscope.relevance.image_layers import Sum
from capscope.relevance.image_rules import (
    GRADIENT,
    GUIDED,
    LRP,
    LRP_PUBLISHED,
    AlphaBeta,
    Box,
    Epsilon,
    Flat,
    Gamma,
    ImageRules,
)

RULES = {
    "alpha 1 beta 0": LRP,
    "alpha 2 beta 1": ImageRules(AlphaBeta(2, 1), AlphaBeta(2, 1)),
    "alpha 2 beta 1, biases split": ImageRules(AlphaBeta(2, 1, "split"), AlphaBeta(2, 1, "split")),
    "alpha 2 beta 1, published biases": ImageRules(AlphaBeta(2, 1, "published")),
    "epsilon": ImageRules(Epsilon(0.01), Epsilon(0.01)),
    "epsilon without bias": ImageRules(Epsilon(0.1, bias=False), Epsilon(0.1, bias=False)),
    "gamma": ImageRules(Gamma(0.3), Gamma(0.3)),
    "box at the image": ImageRules(first=Box()),
    "flat at the image": ImageRules(first=Flat()),
    "batch norm by epsilon": LRP_PUBLISHED,
    "batch norm as identity": ImageRules(batch_norm="identity"),
    "gradient": GRADIENT,
    "guided backpropagation": GUIDED,
}


def conv(channels: int, out: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, **{"padding": kernel // 2} | options)


def stacks() -> dict[str, nn.Sequential]:
    """Return small stacks that hold every kind of layer of the slow twin, in float64."""
    torch.manual_seed(3)
    found = {
        "vgg": nn.Sequential(
            conv(3, 4), nn.ReLU(inplace=True), nn.MaxPool2d(2), conv(4, 5), nn.ReLU(inplace=True)
        ),
        "signed hidden input": nn.Sequential(conv(3, 4), conv(4, 4, groups=2), nn.AvgPool2d(2)),
        "odd sizes": nn.Sequential(
            conv(3, 4, 5, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            conv(4, 4, 2, stride=3, padding=0),
            nn.ReLU(),
        ),
        "dilated": nn.Sequential(conv(3, 4, dilation=2, padding=1), nn.ReLU(), nn.MaxPool2d(3)),
        "overlapping pools": nn.Sequential(
            conv(3, 4), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1), conv(4, 2)
        ),
        "batch norm first": nn.Sequential(nn.BatchNorm2d(3), conv(3, 4), nn.ReLU(), conv(4, 3)),
        "classifier": nn.Sequential(
            conv(3, 4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(36, 7),
            nn.ReLU(),
            nn.Linear(7, 5),
        ),
    }
    for network in found.values():
        for module in network:
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        network.double().eval()
    return found


STACKS = stacks()


def images(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.manual_seed(5)).double()


def starts(network: nn.Module, x: Tensor, words: int) -> Tensor:
    """Return signed relevance (B, T, ...) that is 0 where the network's output is 0."""
    with torch.no_grad():
        output = network(x)
    noise = torch.randn(len(x), words, *output.shape[1:], generator=torch.manual_seed(7))
    return noise.double() * (output != 0)[:, None]


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()


@pytest.mark.parametrize(
    ("stack", "rule"),
    [
        (stack, rule)
        for stack in STACKS
        for rule in RULES
        if stack != "batch norm first" or RULES[rule].first is None
    ],
)
def test_every_rule_equals_its_slow_twin(stack: str, rule: str) -> None:
    network, rules, x = STACKS[stack], RULES[rule], images(2, 9)
    start = starts(network, x, 2)
    found = ImageRelevance(network, rules).maps(x, start)
    for image in range(2):
        for word in range(2):
            first = start[image, word]
            expected = image_reference.sequential(network, x[image], first, rules)
            assert relative(found[image, word], expected) < 1e-9


def test_residual_sum_equals_its_slow_twin() -> None:
    one, other, start = torch.randn(3, 2, 4, 5, 5, generator=torch.manual_seed(1)).double()
    output, back = Sum(0.01, rectified=False)(one, other)
    shares = back(start / output)
    twins = image_reference.add(one, other, start)
    for x, share, twin in zip((one, other), shares, twins, strict=True):
        assert relative(x * share, twin) < 1e-9


def zennit_rules(rules: str) -> list[tuple[type, zennit.core.Hook]]:
    tiny = 1e-12
    weighted = {
        "alpha 1 beta 0": zennit.rules.AlphaBeta(1, 0, tiny, zero_params="bias"),
        "alpha 2 beta 1": zennit.rules.AlphaBeta(2, 1, tiny, zero_params="bias"),
        "epsilon": zennit.rules.Epsilon(0.01),
        "gamma": zennit.rules.Gamma(0.3, tiny),
    }[rules]
    return [
        (zennit.types.Activation, zennit.rules.Pass()),
        (zennit.types.AvgPool, zennit.rules.Norm(tiny)),
        (zennit.composites.Sum, zennit.rules.Norm(tiny)),
        (zennit.types.Convolution, weighted),
        (zennit.types.Linear, zennit.rules.Epsilon(0.01)),
    ]


def by_zennit(network: nn.Module, composite: object, x: Tensor, start: Tensor) -> Tensor:
    """Return zennit's maps, word by word."""
    found = []
    for word in range(start.shape[1]):
        image = x.clone().requires_grad_()
        with composite.context(network) as modified:
            output = modified(image)
            (relevance,) = torch.autograd.grad(output, image, start[:, word])
        found.append(relevance)
    return torch.stack(found, 1)


@pytest.mark.parametrize("rule", ["alpha 1 beta 0", "alpha 2 beta 1", "epsilon", "gamma"])
def test_vgg_stack_equals_zennit(rule: str) -> None:
    network, x = STACKS["vgg"], images(2, 12)
    start = starts(network, x, 2)
    composite = zennit.composites.LayerMapComposite(zennit_rules(rule))
    expected = by_zennit(network, composite, x, start)
    assert relative(ImageRelevance(network, RULES[rule]).maps(x, start), expected) < 1e-6


@pytest.mark.parametrize(
    ("first", "rules"),
    [
        (Flat(), zennit.rules.Flat(1e-12)),
        (
            Box(),
            zennit.rules.ZBox(
                torch.tensor(Box().low).double()[None, :, None, None],
                torch.tensor(Box().high).double()[None, :, None, None],
                1e-12,
            ),
        ),
    ],
)
def test_rules_of_the_first_layer_equal_zennit(first: object, rules: zennit.core.Hook) -> None:
    network, x = STACKS["vgg"], images(2, 12)
    start = starts(network, x, 2)
    composite = zennit.composites.SpecialFirstLayerMapComposite(
        zennit_rules("alpha 1 beta 0"), first_map=[(zennit.types.Linear, rules)]
    )
    expected = by_zennit(network, composite, x, start)
    found = ImageRelevance(network, ImageRules(first=first)).maps(x, start)
    assert relative(found, expected) < 1e-6


@pytest.fixture(scope="module")
def resnet() -> nn.Sequential:
    """Return torchvision's ResNet-18 down to a small grid, with statistics that are not trivial."""
    torch.manual_seed(11)
    network = torchvision.models.resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.eps = 0.0  # zennit's merged batch norm keeps dividing by sqrt(1 + eps)
    return network.double().eval()


def test_resnet_with_folded_batch_norm_equals_zennit(resnet: nn.Module) -> None:
    x = images(1, 40)
    start = torch.randn(1, 2, 1000, generator=torch.manual_seed(2)).double()
    composite = zennit.composites.LayerMapComposite(
        zennit_rules("alpha 1 beta 0"), canonizers=[zennit.torchvision.ResNetCanonizer()]
    )
    expected = by_zennit(resnet, composite, x, start)
    found = ImageRelevance(resnet, ImageRules(sum_epsilon=1e-12)).maps(x, start)
    assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("rules", [GRADIENT, GUIDED])
@pytest.mark.parametrize("name", ["resnet", "squeezenet"])
def test_gradients_equal_autograd(resnet: nn.Module, name: str, rules: ImageRules) -> None:
    torch.manual_seed(0)
    squeezenet = torchvision.models.squeezenet1_0(weights=None).features[:8].double().eval()
    network = resnet if name == "resnet" else squeezenet
    x = images(2, 40)
    with torch.no_grad():
        start = torch.randn(2, 2, *network(x).shape[1:]).double()
    if rules is GUIDED:
        composite = zennit.composites.GuidedBackprop()
    else:
        composite = zennit.composites.LayerMapComposite([])
    expected = by_zennit(network, composite, x, start)
    assert relative(ImageRelevance(network, rules).maps(x, start), expected) < 1e-9


def test_alpha_beta_without_bias_conserves_relevance_at_every_layer() -> None:
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_0(weights=None).features.double().eval()
    x = images(2, 64)
    with torch.no_grad():
        start = network(x)[:, None] * torch.rand(2, 3, 1, 1, 1).double()
    report = ImageRelevance(network).conservation(x, start)
    total = start.flatten(2).sum(2)
    alone = [name for name in report if name in ("image", "0", "2") or name.endswith(".squeeze")]
    assert len(alone) == 11
    for name in alone:
        assert torch.allclose(report[name], total, rtol=1e-6), name


def test_layers_report_what_crosses_each_connection() -> None:
    network, x = STACKS["vgg"], images(2, 8)
    start = starts(network, x, 2)
    engine = ImageRelevance(network)
    crossing = engine.layers(x, start)
    assert list(crossing) == [("3", "4"), ("2", "3"), ("1", "2"), ("0", "1"), ("image", "0")]
    assert torch.equal(crossing["image", "0"], engine.maps(x, start))
    assert crossing["1", "2"].shape == (2, 2, 4, 8, 8)


def test_the_size_of_chunks_changes_nothing() -> None:
    network, x = STACKS["vgg"], images(5, 12)
    start = starts(network, x, 4)
    whole = ImageRelevance(network).maps(x, start)
    for chunk_bytes in (1, 10_000, 60_000):
        parts = ImageRelevance(network, chunk_bytes=chunk_bytes).maps(x, start)
        assert torch.allclose(parts, whole, rtol=1e-12, atol=0)


def test_words_and_images_do_not_mix() -> None:
    network, x = STACKS["classifier"], images(3, 9)
    start = starts(network, x, 4)
    engine = ImageRelevance(network)
    whole = engine.maps(x, start)
    for image in range(3):
        for word in range(4):
            alone = engine.maps(x[image, None], start[image, None, word, None])[0, 0]
            assert torch.allclose(alone, whole[image, word], rtol=1e-9, atol=1e-15)


def test_changed_weights_are_noticed() -> None:
    network, x = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2)).double(), images(1, 6)
    engine = ImageRelevance(network)
    start = starts(network, x, 1)
    engine.maps(x, start)
    with torch.no_grad():
        network[2].weight.mul_(torch.tensor([1.0, -1.0]).double()[:, None, None, None])
    assert torch.equal(engine.maps(x, start), ImageRelevance(network).maps(x, start))


def test_the_network_is_left_as_it_was() -> None:
    network, x = STACKS["vgg"], images(1, 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept = x.clone()
    ImageRelevance(network).maps(x, starts(network, x, 2))
    assert torch.equal(x, kept)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_dead_regions_give_zero_and_no_nan() -> None:
    network = nn.Sequential(conv(3, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 2), nn.ReLU()).double()
    x = images(1, 8)
    x[..., 4:] = 0
    with torch.no_grad():
        network[0].bias.zero_()
    found = ImageRelevance(network).maps(x, torch.ones(1, 2, 2, 4, 4).double())
    assert found.isfinite().all()
    assert (found[..., 4:] == 0).all()


def test_no_words_give_no_maps() -> None:
    network = STACKS["vgg"]
    found = ImageRelevance(network).maps(images(2, 8), torch.zeros(2, 0, 5, 4, 4).double())
    assert found.shape == (2, 0, 3, 8, 8)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(conv(3, 4), nn.SiLU()), r"layer 1 \(SiLU\)"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), "padding_mode"),
        (torchvision.models.mobilenet_v2(weights=None), r"features\.0\.2 \(ReLU6\)"),
        (nn.Sequential(conv(3, 4), nn.LSTM(4, 4)), "LSTM"),
    ],
)
def test_a_layer_without_a_rule_is_named(network: nn.Module, named: str) -> None:
    with pytest.raises(CapscopeError, match=named):
        ImageRelevance(network)


def test_rules_of_the_image_are_refused_inside_the_network() -> None:
    with pytest.raises(CapscopeError, match=r"Box .* ImageRules\.first"):
        ImageRelevance(STACKS["vgg"], ImageRules(convolution=Box()))


def test_relevance_of_another_shape_is_refused() -> None:
    engine = ImageRelevance(STACKS["vgg"])
    with pytest.raises(CapscopeError, match=r"does not fit the network's output \(5, 4, 4\)"):
        engine.maps(images(1, 8), torch.zeros(1, 2, 5, 8, 8).double())
    with pytest.raises(CapscopeError, match="maps need images"):
        engine.maps(images(2, 8), torch.zeros(1, 2, 5, 4, 4).double())


def test_dataflow_that_depends_on_numbers_is_refused() -> None:
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CapscopeError, match="Choosing depends on its data"):
        trace(Choosing())


@pytest.mark.parametrize("name", ["googlenet", "densenet121", "regnet_x_400mf", "alexnet"])
def test_other_networks_of_torchvision_have_rules_for_every_layer(name: str) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, **options).eval()
    x = images(1, 96).float()
    with torch.no_grad():
        start = network(x)[:, None]
    found = ImageRelevance(network).maps(x, start)
    assert found.isfinite().all()
    assert found.abs().max() > 0
