"""Regions of any back end: images grouped by size, a published selection, one output."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from capscope.data.images import map_ahead
from capscope.errors import CapscopeError
from capscope.features.detector.backend import Backend, Found
from capscope.features.detector.boxes import Size, not_empty, rescale
from capscope.features.detector.selection import (
    Selection,
    attributes_of,
    best_class,
    per_class,
    proposals,
)
from capscope.features.device import compute_device, moved, placed
from capscope.features.grid import EXTRACTOR_FILE, WEIGHTS_FILE, weights_sha256
from capscope.features.regions import DETAILS, Regions
from capscope.files import write_json
from capscope.tensors import write_tensors

PROCEDURES = ("proposals", "best_class", "per_class")


@dataclass(frozen=True)
class Rule:
    """How regions are selected: see `capscope.features.detector.selection`.

    Attributes
    ----------
    procedure : {"proposals", "best_class", "per_class"}
    least, most : int
        Regions of an image: equal, or from 10 to 100; fewer only where there are no more.
    parity : bool
        The published rounding: ``rounded`` of `per_class`, ``inclusive`` of `proposals`, and
        there one scale for both axes.
    """

    procedure: str = "proposals"
    least: int = 36
    most: int = 36
    parity: bool = False

    def __post_init__(self) -> None:
        if self.procedure not in PROCEDURES or not 1 <= self.least <= self.most:
            raise CapscopeError(
                f"selection {self.procedure!r} of {self.least} to {self.most} regions: give one of "
                f"{', '.join(PROCEDURES)}, and 1 <= least <= most"
            )

    def select(self, found: Found, size: Size, raw_size: Size) -> Selection:
        """Select regions of an image of `raw_size`, resized to `size`."""
        least, most = self.least, self.most
        if self.procedure == "best_class":
            return best_class(found, size, least=least, most=most)
        if self.procedure == "per_class":
            return per_class(found, size, least=least, most=most, rounded=self.parity)
        return proposals(found, size, raw_size, least=least, most=most, inclusive=self.parity)

    def raw_boxes(self, chosen: Selection, size: Size, raw_size: Size) -> Tensor:
        """Return the boxes (n, 4) of a selection in pixels of the image itself."""
        if self.parity and self.procedure == "proposals":
            return chosen.boxes / (size[0] / raw_size[0])
        return rescale(chosen.boxes, size, raw_size)


class RegionDetector:
    """Finds regions with a `Backend` and a `Rule`.

    Attributes
    ----------
    network : nn.Module
        A `Backend`; in evaluation and on its device.
    rule : Rule
    facts : dict
        What else identifies the features: ``network``, ``layer``, ``image_size``, names.
    most, dim, details
        As of every `capscope.features.detector.protocol.Detector`.
    """

    def __init__(
        self,
        network: nn.Module,
        rule: Rule,
        facts: Mapping[str, Any],
        *,
        batch_size: int = 1,
        device: torch.device | str | None = None,
        precision: str = "float32",
    ) -> None:
        self.device = compute_device() if device is None else torch.device(device)
        self.network = placed(network.eval().requires_grad_(False), self.device)
        self.backend = cast(Backend, network)
        self.backend.precision = precision
        self.rule, self.facts, self.batch_size = rule, dict(facts), batch_size
        self.most, self.dim = rule.most, self.backend.dim
        known = self.backend.attributes > 0
        self.details = tuple(name for name in DETAILS if known or "attribute" not in name)

    def detect(
        self, images: Sequence[NDArray[np.uint8]], done: Callable[[int], object] | None = None
    ) -> list[Regions]:
        """Return the regions of RGB images (height, width, 3), one entry an image, in order.

        Only images that have one size in the network go through it together, so that no image is
        padded: padding changes what the network sees at the border, and what it proposes.
        """
        results: dict[int, Regions] = {}
        for numbers in self.batches(images):
            inputs = self.inputs([images[number] for number in numbers])
            size = inputs.shape[2], inputs.shape[3]
            with torch.inference_mode():
                maps = self.backend.maps(inputs)
                found = self.backend.describe(maps, self.backend.propose(maps, size), size)
                for number, one in zip(numbers, found, strict=True):
                    height, width = images[number].shape[:2]
                    results[number] = self.regions(one.cpu(), size, (height, width))
            if done is not None:
                done(len(numbers))
        return [results[number] for number in range(len(images))]

    def describe(
        self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Tensor]
    ) -> list[Regions]:
        """Return what the network says of given boxes (n, 4), in [0, 1] of width and height.

        Nothing is selected. The features of boxes that `best_class` or `per_class` found differ
        from those found with them, which are of the proposals that the boxes were made from.
        """
        results: dict[int, Regions] = {}
        for numbers in self.batches(images):
            inputs = self.inputs([images[number] for number in numbers])
            size = inputs.shape[2], inputs.shape[3]
            extent = torch.tensor([size[1], size[0], size[1], size[0]])
            given = [(boxes[number] * extent).float().to(self.device) for number in numbers]
            with torch.inference_mode():
                found = self.backend.describe(self.backend.maps(inputs), given, size)
            for number, one in zip(numbers, found, strict=True):
                scores, classes = one.cpu().class_logits.softmax(1)[:, :-1].max(1)
                rows = torch.arange(len(scores))
                chosen = Selection(rows, one.boxes.cpu(), classes, scores, ())
                height, width = images[number].shape[:2]
                unit = boxes[number].float().cpu()
                results[number] = self._described(one.cpu(), chosen, unit, (width, height))
        return [results[number] for number in range(len(images))]

    def batches(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
        """Yield the numbers of images that may go through the network together."""
        buckets: dict[Any, list[int]] = {}
        for number, image in enumerate(images):
            size = image.shape[0], image.shape[1]
            buckets.setdefault(self.backend.bucket(size), []).append(number)
        for members in buckets.values():
            for start in range(0, len(members), self.batch_size):
                yield members[start : start + self.batch_size]

    def inputs(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return images of one bucket as the network takes them: (B, 3, H, W)."""
        workers = min(len(images), len(os.sched_getaffinity(0)))
        prepared = torch.stack(list(map_ahead(self.backend.prepare, images, workers)))
        return moved(prepared, self.device)

    def regions(self, found: Found, size: Size, raw_size: Size) -> Regions:
        """Select regions of an image of `raw_size`, resized to `size`; those without area go."""
        chosen = self.rule.select(found, size, raw_size)
        boxes = self.rule.raw_boxes(chosen, size, raw_size)
        some = not_empty(boxes)
        height, width = raw_size
        unit = boxes[some] / boxes.new_tensor([width, height, width, height])
        return self._described(found, chosen.where(some), unit, (width, height))

    def _described(
        self, found: Found, chosen: Selection, unit: Tensor, size: tuple[int, int]
    ) -> Regions:
        attributes: tuple[Tensor | None, Tensor | None] = None, None
        if found.attribute_logits is not None:
            published = self.rule.procedure != "proposals"
            attributes = attributes_of(found, chosen.rows, count_none=not published)
        return Regions(
            found.cells[chosen.rows],
            unit.clamp(0, 1),
            size,
            chosen.classes,
            chosen.scores,
            *attributes,
        )

    def spec(self) -> dict[str, Any]:
        """Return what identifies the features, as JSON."""
        return {
            **self.facts,
            "weights_sha256": weights_sha256(self.network),
            "selection": {**asdict(self.rule), "proposals": self.backend.proposals},
        }

    def save(self, folder: Path) -> None:
        """Write ``extractor.json`` and ``extractor.safetensors``."""
        write_tensors(folder / WEIGHTS_FILE, self.network.state_dict())
        write_json(folder / EXTRACTOR_FILE, {"kind": "regions", **self.spec()})
