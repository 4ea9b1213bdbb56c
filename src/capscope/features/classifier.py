"""Classification networks of torchvision, cut at a layer that has maps."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from capscope.errors import CapscopeError

CUTS = {
    **{f"resnet{depth}": "layer4" for depth in (18, 34, 50, 101, 152)},
    **{f"caffe_resnet{depth}": "layer4" for depth in (18, 34, 50, 101, 152)},
    "regnet_x_400mf": "trunk_output",
    "vgg16": "features.29",
    "vgg19": "features.35",
    "squeezenet1_0": "features",
    **{f"{kind}_{size}": "permute" for kind in ("swin", "swin_v2") for size in "tsb"},
}
"""Where networks are cut unless another layer is named: behind the last activation of the maps."""
CAFFE = "caffe_"
"""Residual networks as Caffe has them; the prefix of their names."""


def build_classifier(name: str) -> nn.Module:
    """Return a whole network of torchvision, without memory for its weights where that works."""
    from torchvision import models

    plain = name.removeprefix(CAFFE)
    known = models.list_models(module=models)
    if plain not in known or (plain != name and not re.fullmatch(r"resnet\d+", plain)):
        raise CapscopeError(
            f"unknown grid network {name!r}; there are: small, {CAFFE}resnet101 and the like, and "
            f"torchvision's {', '.join(known)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how weights are drawn does not matter here
        try:
            with torch.device("meta"):
                whole: nn.Module = models.get_model(plain, weights=None)
        except NotImplementedError:  # RegNets compute their widths with tensors
            whole = models.get_model(plain, weights=None)
    return to_caffe(whole) if plain != name else whole


def to_caffe(resnet: nn.Module) -> nn.Module:
    """Give a residual network of torchvision the strides of He et al.'s, in place.

    Blocks that halve the maps do so in their first convolution, and the first pooling has windows
    that start at the border, the last of which may be cut off.
    """
    resnet.maxpool = nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
    for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
        first = stage[0]  # type: ignore[index]
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)  # type: ignore[union-attr]
    return resnet


def cut(name: str, layer: str | None = None, pool: int | None = None) -> nn.Module:
    """Return a network up to the last operation of a layer, its weights still to be loaded.

    Parameters
    ----------
    name : str
        Of a classification network of torchvision, or ``caffe_`` and that of a ResNet.
    layer : str, optional
        Name of a module, such as ``layer3``; by default that of `CUTS`.
    pool : int, optional
        Average the maps to pool x pool cells, whatever the size of the image.

    Returns
    -------
    nn.Module
        (B, 3, H, W) -> (B, C, h, w); parameters are named as torchvision names them.
    """
    whole = build_classifier(name).eval()
    layer = layer or CUTS.get(name)
    if layer is None:
        raise CapscopeError(f"features.grid.layer: name a layer of {name}, one of {_listed(whole)}")
    tracer = fx.Tracer()
    try:
        graph = tracer.trace(whole)
    except (fx.proxy.TraceError, TypeError) as error:
        raise CapscopeError(f"grid network {name} cannot be cut: {error}") from error
    last = _last_node(graph, layer)
    if last is None:
        raise CapscopeError(f"{name} has no layer {layer!r}; it has {_listed(whole)}")
    (output,) = (node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(output):
        if pool is not None:
            whole.cells = nn.AdaptiveAvgPool2d(pool)
            last = graph.call_module("cells", (last,))
        graph.output(last)
    graph.erase_node(output)
    for node in reversed(graph.nodes):  # what came behind, and what else nobody reads
        if node.op not in ("output", "placeholder") and not node.users:
            graph.erase_node(node)
    network = fx.GraphModule(whole, graph, class_name=name)
    network.delete_all_unused_submodules()
    return network.to_empty(device="cpu").eval()


def own_weights(network: nn.Module, state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the weights of a whole classifier that `network`, cut from it, has.

    Counters of norms, which older files lack, are of no use and set to 0.
    """
    own, whole = network.state_dict(), build_classifier(name).state_dict()
    counters = {key: torch.tensor(0) for key in own if key.endswith(".num_batches_tracked")}
    kept = {key: value for key, value in state.items() if key in own or key not in whole}
    return {**counters, **kept}


def _last_node(graph: fx.Graph, layer: str) -> fx.Node | None:
    found = None
    for node in graph.nodes:
        stack: Mapping[str, Any] = node.meta.get("nn_module_stack", {})
        paths = [path for path, _ in stack.values()]
        if node.op == "call_module":
            paths.append(str(node.target))
        if any(path == layer or path.startswith(f"{layer}.") for path in paths):
            found = node
    return found


def _listed(network: nn.Module) -> str:
    names = [name for name, _ in network.named_children()]
    return ", ".join([*names, *(f"{n}.{c}" for n in names for c in _children(network, n))][:40])


def _children(network: nn.Module, name: str) -> list[str]:
    return [child for child, _ in network.get_submodule(name).named_children()]
