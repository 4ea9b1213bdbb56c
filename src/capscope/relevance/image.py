"""Relevance from a convolutional network's output grid down to the pixels, many words at once.

>>> relevance = ImageRelevance(vgg16().features[:-1])
>>> maps = relevance.maps(images, grid)  # (B, 3, S, S) and (B, T, C, h, w) -> (B, T, 3, S, S)

One forward of the network keeps what no word changes; the T maps of each image then go back as a
chain of transposed convolutions, without autograd, in chunks that bound the memory. The chunk size
changes nothing but time and memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.relevance.image_graph import (
    IMAGE,
    Layer,
    consumers,
    drop_last_rectifier,
    fold_batch_norm,
    trace,
)
from capscope.relevance.image_layers import Passage, Step, build
from capscope.relevance.image_rules import LRP, ImageRules
from capscope.relevance.image_weighted import Back, Weighted, divide, scale

Observer = Callable[[str, str, Tensor], None]


class ImageRelevance:
    """Sends relevance (or gradients) of grid cells back to the image.

    Parameters
    ----------
    network : torch.nn.Module
        A plain convolutional network, image (B, 3, S, S) to grid (B, C, h, w), used as in
        evaluation mode. Its weights are prepared once and again whenever they have changed.
    rules : ImageRules
        What each kind of layer does; `LRP` (alpha 1, beta 0), `GRADIENT`, `GUIDED`, or your own.
    chunk_bytes : int
        Memory for the largest activation of the maps that travel together.

    Raises
    ------
    CapscopeError
        If the network holds a layer without a rule; the message names the layer.
    """

    def __init__(
        self, network: nn.Module, rules: ImageRules = LRP, *, chunk_bytes: int = 32 << 20
    ) -> None:
        self.network = network
        self.rules = rules
        self.chunk_bytes = chunk_bytes
        self._prepare()

    @torch.no_grad()
    def maps(self, images: Tensor, relevance: Tensor) -> Tensor:
        """Return the relevance of every pixel for every word.

        Parameters
        ----------
        images : Tensor (B, 3, S, S)
            Normalised images.
        relevance : Tensor (B, T, C, h, w)
            Relevance of the network's output (for gradients: the gradient there), one map a word;
            after the first two axes, any shape that the network returns.

        Returns
        -------
        Tensor (B, T, 3, S, S)
            Signed relevance; words do not mix.
        """
        return self._run(images, relevance, None)

    @torch.no_grad()
    def layers(self, images: Tensor, relevance: Tensor) -> dict[tuple[str, str], Tensor]:
        """Return the relevance that crosses each connection of the network.

        Keys are (from, to) names of layers, from the output to ``image``; values have the shape
        (B, T, ...) of the tensor between them. A tensor's relevance is the sum over its readers.
        """
        chunks: dict[tuple[str, str], list[Tensor]] = {}

        def observe(source: str, reader: str, crossing: Tensor) -> None:
            chunks.setdefault((source, reader), []).append(crossing)

        self._run(images, relevance, observe)
        shape = relevance.shape[:2]
        joined = {key: torch.cat(parts) for key, parts in chunks.items()}
        return {key: value.reshape(*shape, *value.shape[1:]) for key, value in joined.items()}

    @torch.no_grad()
    def conservation(self, images: Tensor, relevance: Tensor) -> dict[str, Tensor]:
        """Return the sum of relevance, (B, T), at each layer's output and at ``image``.

        Only rules that promise it conserve: alpha-beta without bias does, up to units without any
        positive input; epsilon loses what stabiliser and bias take.
        """
        sums: dict[tuple[str, str], list[Tensor]] = {}

        def observe(source: str, reader: str, crossing: Tensor) -> None:
            sums.setdefault((source, reader), []).append(crossing.flatten(1).sum(1))

        self._run(images, relevance, observe)
        report = {self._steps[-1][0].name: relevance.flatten(2).sum(2)}
        for (source, _), parts in sums.items():
            total = torch.cat(parts).reshape(relevance.shape[:2])
            report[source] = report[source] + total if source in report else total
        return report

    def _run(self, images: Tensor, relevance: Tensor, observe: Observer | None) -> Tensor:
        """Send all maps back, chunk by chunk: whole images together, or some words of one image."""
        if self._stamp() != self._prepared:
            self._prepare()
        if images.dim() != 4 or relevance.dim() < 3 or len(images) != len(relevance):
            raise CapscopeError(
                "maps need images (B, 3, S, S) and relevance (B, T, C, h, w), got "
                f"{tuple(images.shape)} and {tuple(relevance.shape)}"
            )
        dtype = next((weight.dtype for weight in self.network.parameters()), images.dtype)
        images = images.to(dtype)
        words = relevance.shape[1]
        found = images.new_empty((len(images), words, *images.shape[1:]))
        at_once, start = 1, 0
        while start < len(images) and words:
            stop = min(len(images), start + at_once)
            tape = _Tape(self._steps, images[start:stop], keep=observe is not None)
            room = max(1, self.chunk_bytes // tape.largest)
            for first in range(0, words, room):
                chunk = relevance[start:stop, first : first + room].to(dtype)
                sent = tape.send(chunk, self.rules.carries == "relevance", observe)
                found[start:stop, first : first + room] = sent.view(
                    *chunk.shape[:2], *images.shape[1:]
                )
            at_once, start = max(1, room // words), stop
        return found

    def _prepare(self) -> None:
        """Trace the network, choose a step for every layer and prepare its weights."""
        with torch.no_grad():
            self._steps = _plan(self.network, self.rules)
        self._prepared = self._stamp()

    def _stamp(self) -> list[tuple[int, int]]:
        """Identify the network's weights: in-place changes and replacements alter it."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        return [(tensor.data_ptr(), tensor._version) for tensor in tensors]


def _plan(network: nn.Module, rules: ImageRules) -> list[tuple[Layer, Step]]:
    """Return the layers of the network with their steps under the rules."""
    layers = trace(network)
    relevance = rules.carries == "relevance"
    if rules.batch_norm == "fold" or not relevance:
        layers = fold_batch_norm(layers)
    if relevance:
        layers = drop_last_rectifier(layers)
    counts = consumers(layers)
    by_name = {layer.name: layer for layer in layers}
    absorbing = ("convolution", "linear", "batch_norm", "sum")
    absorbed = {
        layer.sources[0]
        for layer in layers
        if layer.kind == "rectifier"
        and relevance
        and counts[layer.sources[0]] == 1
        and layer.sources[0] in by_name
        and by_name[layer.sources[0]].kind in absorbing
    }
    steps: list[tuple[Layer, Step]] = []
    for layer in layers:
        inputs = [by_name[source] for source in layer.sources if source != IMAGE]
        nonnegative = IMAGE not in layer.sources and all(source.nonnegative for source in inputs)
        step = build(layer, rules, nonnegative=nonnegative, rectified=layer.name in absorbed)
        if layer.kind == "rectifier" and layer.sources[0] in absorbed:
            step = Passage(rectify=True)
        steps.append((layer, step))
    return steps


class _Tape:
    """One forward pass and the ways back through its layers."""

    def __init__(self, steps: list[tuple[Layer, Step]], images: Tensor, keep: bool) -> None:
        self.image = images.contiguous(memory_format=torch.channels_last)
        values = {IMAGE: self.image}
        last_use = {source: layer.name for layer, _ in steps for source in layer.sources}
        self.backs: list[tuple[Layer, Back]] = []
        self.explicit = {layer.name for layer, step in steps if isinstance(step, Weighted)}
        self.largest = 1
        for layer, step in steps:
            output, back = step(*[values[source] for source in layer.sources])
            self.backs.append((layer, back))
            self.largest = max(self.largest, output[0].numel() * output.element_size())
            for source in set(layer.sources):
                if last_use[source] == layer.name and not keep:
                    del values[source]
            values[layer.name] = output
        self.output = values[steps[-1][0].name]
        self.values = values

    def send(self, relevance: Tensor, proportional: bool, observe: Observer | None) -> Tensor:
        """Send relevance (b, k, C, h, w) back; return the images' (b k, 3, S, S)."""
        if relevance.shape[2:] != self.output.shape[1:]:
            raise CapscopeError(
                f"relevance of shape {tuple(relevance.shape[2:])} does not fit the network's "
                f"output {tuple(self.output.shape[1:])}"
            )
        seed = relevance.flatten(0, 1)
        if proportional:
            seed = scale(seed, divide(torch.ones_like(self.output), self.output))
        if seed.dim() == 4:
            seed = seed.contiguous(memory_format=torch.channels_last)
        multipliers = {self.backs[-1][0].name: seed}
        for layer, back in reversed(self.backs):
            sent = back(multipliers.pop(layer.name))
            for source, multiplier in zip(layer.sources, sent, strict=True):
                pixels = source == IMAGE and layer.name not in self.explicit
                if proportional and pixels:
                    multiplier = scale(multiplier, self.image)
                if observe is not None:
                    explicit = source == IMAGE or not proportional
                    held = layer.name if layer.kind in ("rectifier", "passage") else source
                    value = multiplier if explicit else scale(multiplier, self.values[held])
                    observe(source, layer.name, value)
                if source in multipliers:
                    multiplier = multipliers[source] + multiplier
                multipliers[source] = multiplier
        return multipliers[IMAGE]
