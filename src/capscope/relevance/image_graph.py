"""A convolutional network as a list of layers, in the order in which they run.

`trace` follows the network's own forward with torch.fx, so Sequential stacks, residual blocks and
fire modules all come out as the same few kinds of layer. What is not understood is an error that
names it: relevance through an unknown layer would be silently wrong.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from capscope.errors import CapscopeError

IMAGE = "image"


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Attributes
    ----------
    name : str
        Its path in the network (``features.0``); ``#k`` marks the k-th use of a shared module.
    kind : str
        convolution, linear, batch_norm, rectifier, max_pool, average_pool, adaptive_average_pool,
        sum, concatenation, flatten or passage (does nothing; left out by `trace`).
    sources : tuple of str
        Names of the layers that it reads; ``image`` is the network's input.
    options : dict
        Weights and sizes, as the functions of torch.nn.functional take them.
    nonnegative : bool
        Whether its output is never negative, whatever the image.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict, compare=False)
    nonnegative: bool = False


def trace(network: nn.Module) -> list[Layer]:
    """Return the layers of `network` in the order of their execution; the last one is the output.

    Raises
    ------
    CapscopeError
        If the network holds a layer that has no relevance rule or cannot be traced.
    """
    try:
        tracer = fx.Tracer()
        if tracer.is_leaf_module(network, ""):
            network = nn.Sequential(network)
        graph = tracer.trace(network)
    except (fx.proxy.TraceError, TypeError) as error:
        raise CapscopeError(
            f"the forward of {type(network).__name__} depends on its data and cannot be traced: "
            f"{error}. Give relevance a plain convolutional network."
        ) from error
    modules = dict(network.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    seen: Counter[str] = Counter()
    names: dict[fx.Node, str] = {}
    layers: list[Layer] = []
    for node in graph.nodes:
        if node.op == "placeholder" and not names:
            names[node] = IMAGE
            continue
        if node.op == "output":
            return _finish(layers, node, names)
        if node.op == "call_module":
            target = str(node.target)
            name = target if calls[target] == 1 else f"{target}#{seen[target]}"
            seen[target] += 1
            kind, options = _module(name, modules[target])
            sources = node.args[:1]
        elif node.op in ("call_function", "call_method"):
            stack = list(node.meta.get("nn_module_stack", {}).values())
            path = stack[-1][0] if stack else ""
            name = f"{path}.{node.name}" if path else node.name
            kind, options, sources = _function(name, node)
        else:
            raise _unknown(node.name, f"{node.op} {node.target}")
        if not all(isinstance(source, fx.Node) and source in names for source in sources):
            raise _unknown(name, f"{kind} with a constant")
        if kind == "passage":
            names[node] = names[sources[0]]
            continue
        names[node] = name
        inputs = tuple(names[source] for source in sources if isinstance(source, fx.Node))
        positive = {layer.name for layer in layers if layer.nonnegative}
        nonnegative = kind == "rectifier" or (
            kind not in ("convolution", "linear", "batch_norm") and positive.issuperset(inputs)
        )
        layers.append(Layer(name, kind, inputs, options, nonnegative))
    raise CapscopeError(f"{type(network).__name__} has no output")


def consumers(layers: list[Layer]) -> Counter[str]:
    """Count how many times each layer's output is read; the network's output counts as one."""
    counts = Counter(source for layer in layers for source in layer.sources)
    counts[layers[-1].name] += 1
    return counts


def fold_batch_norm(layers: list[Layer]) -> list[Layer]:
    """Merge every batch norm into the convolution that alone feeds it (evaluation mode)."""
    by_name = {layer.name: layer for layer in layers}
    counts = consumers(layers)
    folded: dict[str, Layer] = {}
    renamed: dict[str, str] = {}
    for layer in layers:
        source = by_name.get(layer.sources[0])
        if layer.kind != "batch_norm" or source is None or counts[source.name] > 1:
            continue
        if source.kind not in ("convolution", "linear"):
            continue
        weight, bias = source.options["weight"], source.options["bias"]
        scale = layer.options["scale"]
        options = dict(source.options)
        options["weight"] = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        options["bias"] = layer.options["shift"] + (0 if bias is None else bias * scale)
        folded[source.name] = replace(source, options=options)
        renamed[layer.name] = source.name
    return [
        replace(
            folded.get(layer.name, layer),
            sources=tuple(renamed.get(source, source) for source in layer.sources),
        )
        for layer in layers
        if layer.name not in renamed
    ]


def drop_last_rectifier(layers: list[Layer]) -> list[Layer]:
    """Turn rectifiers that end the network into passages.

    Relevance of a rectified output is relevance of what was rectified, whatever its sign; only
    passages, flattening and concatenation may lie between such a rectifier and the output.
    """
    counts = consumers(layers)
    ends = {layers[-1].name}
    kept: list[Layer] = []
    for layer in reversed(layers):
        if layer.name in ends and counts[layer.name] == 1:
            if layer.kind in ("passage", "flatten", "concatenation"):
                ends.update(layer.sources)
            elif layer.kind == "rectifier":
                layer = replace(layer, kind="passage")
        kept.append(layer)
    return kept[::-1]


def _finish(layers: list[Layer], output: fx.Node, names: dict[fx.Node, str]) -> list[Layer]:
    """Return the layers that the output depends on, the output's layer last."""
    (result,) = output.args
    if not isinstance(result, fx.Node) or not layers or names[result] == IMAGE:
        raise CapscopeError("relevance needs a network that returns one tensor made from the image")
    needed = {names[result]}
    kept = []
    for layer in reversed(layers):
        if layer.name in needed:
            needed.update(layer.sources)
            kept.append(layer)
    return kept[::-1]


def _unknown(name: str, what: str) -> CapscopeError:
    return CapscopeError(
        f"no relevance rule for layer {name} ({what}). The image part knows convolution, linear, "
        "batch norm, ReLU, max, average and adaptive average pooling, addition, concatenation, "
        "flatten, dropout and identity: choose a network made of these."
    )


def _module(name: str, module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Describe a module of torch.nn."""
    match module:
        case nn.Conv2d():
            return "convolution", _convolution(name, module)
        case nn.Linear():
            return "linear", {"weight": module.weight, "bias": module.bias}
        case nn.BatchNorm2d() | nn.BatchNorm1d():
            return "batch_norm", _batch_norm(name, module)
        case nn.ReLU():
            return "rectifier", {}
        case nn.MaxPool2d():
            return "max_pool", {
                "kernel_size": module.kernel_size,
                "stride": module.stride,
                "padding": module.padding,
                "dilation": module.dilation,
                "ceil_mode": module.ceil_mode,
            }
        case nn.AvgPool2d():
            return "average_pool", {
                "kernel_size": module.kernel_size,
                "stride": module.stride,
                "padding": module.padding,
                "ceil_mode": module.ceil_mode,
                "count_include_pad": module.count_include_pad,
                "divisor_override": module.divisor_override,
            }
        case nn.AdaptiveAvgPool2d():
            return "adaptive_average_pool", {"output_size": module.output_size}
        case nn.Flatten():
            return "flatten", {"start_dim": module.start_dim, "end_dim": module.end_dim}
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d() | nn.AlphaDropout() | nn.Identity():
            return "passage", {}
    raise _unknown(name, type(module).__name__)


def _convolution(name: str, module: nn.Conv2d) -> dict[str, Any]:
    padding = module.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if padding == "same" and any(size % 2 for size in reach):
            raise _unknown(name, "Conv2d with uneven padding")
        padding = tuple(size // 2 if padding == "same" else 0 for size in reach)
    if module.padding_mode != "zeros":
        raise _unknown(name, f"Conv2d with padding_mode {module.padding_mode!r}")
    return {
        "weight": module.weight,
        "bias": module.bias,
        "stride": module.stride,
        "padding": padding,
        "dilation": module.dilation,
        "groups": module.groups,
    }


def _batch_norm(name: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> dict[str, Any]:
    if module.running_mean is None or module.running_var is None:
        raise _unknown(name, "batch norm without running statistics")
    scale = (module.running_var + module.eps).rsqrt()
    if module.affine:
        scale = scale * module.weight
    shift = -module.running_mean * scale
    return {"scale": scale, "shift": shift + module.bias if module.affine else shift}


_FUNCTIONS: dict[Any, tuple[str, tuple[str, ...]]] = {
    functional.relu: ("rectifier", ("inplace",)),
    torch.relu: ("rectifier", ()),
    "relu": ("rectifier", ()),
    "relu_": ("rectifier", ()),
    operator.add: ("sum", ()),
    operator.iadd: ("sum", ()),
    torch.add: ("sum", ()),
    "add": ("sum", ()),
    "add_": ("sum", ()),
    torch.cat: ("concatenation", ("dim",)),
    torch.flatten: ("flatten", ("start_dim", "end_dim")),
    "flatten": ("flatten", ("start_dim", "end_dim")),
    functional.dropout: ("passage", ("p", "training", "inplace")),
    functional.max_pool2d: (
        "max_pool",
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
    functional.avg_pool2d: (
        "average_pool",
        (
            "kernel_size",
            "stride",
            "padding",
            "ceil_mode",
            "count_include_pad",
            "divisor_override",
        ),
    ),
    functional.adaptive_avg_pool2d: ("adaptive_average_pool", ("output_size",)),
}


def _function(name: str, node: fx.Node) -> tuple[str, dict[str, Any], tuple[Any, ...]]:
    """Describe a call of a function or of a tensor's method."""
    if node.target not in _FUNCTIONS:
        target: Callable[..., Tensor] | str = node.target
        raise _unknown(name, target if isinstance(target, str) else target.__name__)
    kind, parameters = _FUNCTIONS[node.target]
    given = list(node.args)
    sources: tuple[Any, ...]
    if kind == "sum":
        sources, given = tuple(given[:2]), given[2:]
    elif kind == "concatenation":
        joined = given.pop(0) if given else ()
        sources = tuple(joined) if isinstance(joined, tuple | list) else ()
    else:
        sources, given = tuple(given[:1]), given[1:]
    if not sources or len(given) > len(parameters) or not set(node.kwargs) <= set(parameters):
        raise _unknown(name, f"{node.target} with arguments {node.args[1:]} {dict(node.kwargs)}")
    options = dict(zip(parameters, given, strict=False)) | dict(node.kwargs)
    if kind == "concatenation" and options.get("dim", 0) != 1:
        raise _unknown(name, "concatenation along another axis than the channels")
    return kind, options, sources
