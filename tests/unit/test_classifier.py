"""Classification networks of torchvision as grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from test_grid import settings

from capscope.errors import CapscopeError
from capscope.features.classifier import CUTS, build_classifier, cut, own_weights
from capscope.features.extractor import look
from capscope.features.grid import GridExtractor, build_extractor
from capscope.relevance.image import ImageRelevance
from capscope.relevance.image_rules import LRP
from capscope.tensors import fit, write_tensors

NETWORKS = [
    *(("resnet18", layer) for layer in (None, "layer3", "layer2.0", "layer4.1.conv1")),
    *((name, None) for name in ("regnet_x_400mf", "squeezenet1_0", "swin_t")),
    *((name, "features") for name in ("mobilenet_v3_small", "convnext_tiny")),
]


def whole(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module = torchvision.models.get_model(name, weights=None)
    return made.eval()


@pytest.mark.parametrize(("name", "layer"), NETWORKS)
def test_a_network_is_cut_behind_the_layer(name: str, layer: str | None) -> None:
    complete = whole(name)
    network = cut(name, layer)
    fit(network, own_weights(network, complete.state_dict(), name), name)
    seen: list[torch.Tensor] = []
    module = complete.get_submodule(layer or CUTS[name])
    module.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        complete(images)
        maps = network(images)
    torch.testing.assert_close(maps, seen[0])
    own = set(network.state_dict())
    assert own <= set(complete.state_dict())
    assert not any(key.startswith(("fc.", "classifier.", "head.")) for key in own)


def test_pooling_averages_the_maps_to_a_fixed_grid() -> None:
    plain, pooled = cut("resnet18"), cut("resnet18", pool=3)
    state = own_weights(plain, whole("resnet18").state_dict(), "resnet18")
    fit(plain, state, "")
    fit(pooled, state, "")
    images = torch.randn(1, 3, 96, 160)
    with torch.inference_mode():
        expected = torch.nn.functional.adaptive_avg_pool2d(plain(images), 3)
        torch.testing.assert_close(pooled(images), expected)


@pytest.mark.parametrize("name", ["caffe_resnet18", "caffe_resnet50"])
def test_caffe_halves_in_the_first_convolution_and_pools_without_padding(name: str) -> None:
    network = build_classifier(name)
    strides = [
        (block.conv1.stride, block.conv2.stride)  # type: ignore[union-attr]
        for stage in (network.layer2, network.layer3, network.layer4)
        for block in stage  # type: ignore[union-attr]
    ]
    assert strides.count(((2, 2), (1, 1))) == 3
    assert set(strides) == {((2, 2), (1, 1)), ((1, 1), (1, 1))}
    assert network.maxpool.padding == 0
    assert network.maxpool.ceil_mode


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    state = {k: v for k, v in whole("resnet18").state_dict().items() if "tracked" not in k}
    write_tensors(path, state)  # as older files, without the counters of norms
    return str(path)


def test_an_extractor_comes_back_from_a_folder(weights: str, tmp_path: Path) -> None:
    chosen = settings(network="resnet18", weights=weights, layer="layer3", pool=2)
    extractor = build_extractor(chosen)
    assert (extractor.grid, extractor.dim, extractor.layer) == ((2, 2), 256, "layer3")
    extractor.save(tmp_path)
    again = GridExtractor.load(tmp_path)
    assert again.spec() == extractor.spec()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), extractor(images), rtol=0, atol=0)


def test_images_of_native_size_are_seen_one_by_one(weights: str) -> None:
    import numpy as np

    chosen = settings(network="resnet18", weights=weights, image_size="native", pool=2)
    extractor = build_extractor(chosen)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, size, np.uint8) for size in ((40, 90, 3), (64, 64, 3))]
    features = look(extractor, pictures)
    assert features.cells.shape == (2, 4, 512)
    alone = look(extractor, pictures[1:])
    torch.testing.assert_close(features.cells[1:], alone.cells)


def test_relevance_goes_through_residual_networks_and_pooling(weights: str) -> None:
    chosen = settings(network="resnet18", weights=weights, layer="layer3", pool=2)
    extractor = build_extractor(chosen)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backward = ImageRelevance(extractor.network, LRP)
    with torch.inference_mode():
        maps = extractor.network(images)
    relevance = backward.maps(images, maps[:, None])
    assert relevance.shape == (1, 1, *images.shape[1:])
    assert relevance.isfinite().all()
    assert relevance.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "nonet"}, "unknown grid network 'nonet'"),
        ({"network": "caffe_vgg16"}, "unknown grid network 'caffe_vgg16'"),
        ({"network": "densenet121"}, "name a layer of densenet121, one of features, "),
        ({"layer": "layer9"}, "resnet18 has no layer 'layer9'; it has conv1, "),
        ({"layer": "avgpool", "network": "vit_b_16"}, "vit_b_16 has no layer 'avgpool'"),
        ({"image_size": "native"}, "image_size native needs pool"),
        ({"layer": "fc"}, r"its output of shape \(1, 1000\) is no map"),
    ],
)
def test_what_cannot_be_a_grid_is_named(weights: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CapscopeError, match=message):
        build_extractor(settings(**{"network": "resnet18", "weights": weights, **change}))
