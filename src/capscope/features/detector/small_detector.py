"""The small detector as a detector: images in, regions out; on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from capscope.data.images import preprocess
from capscope.errors import CapscopeError
from capscope.features.detector.small import OVERLAPS, WINDOWS, Found, RegionNetwork
from capscope.features.grid import EXTRACTOR_FILE, WEIGHTS_FILE, weights_sha256
from capscope.features.regions import DETAILS, Regions
from capscope.files import read_json, read_manifest, write_json
from capscope.tensors import fit, read_tensors, write_tensors

MODEL_FILE = "model.safetensors"
INFO_FILE = "model.json"
POSITIONS = 4
"""Channels behind the feature: distances of a box's sides from the sides of the image."""
POSITION_SCALE = 4.0
"""Their size, as of the small grid network: beside features of size 1, 1 would hardly be seen."""


class SmallDetector:
    """Finds regions in scenes, with class, colour and scores.

    Attributes
    ----------
    network : RegionNetwork
    image_size : int
        Images are resized to a square of this many pixels.
    scale : float
        The network's features are multiplied by it.
    most, dim, details
        As of every `capscope.features.detector.protocol.Detector`.
    """

    def __init__(self, network: RegionNetwork, most: int, info: Mapping[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.most = most
        self.info = dict(info)
        self.image_size, self.scale = int(info["image_size"]), float(info["scale"])
        self.dim = network.feature.out_features + POSITIONS
        self.details: tuple[str, ...] = tuple(DETAILS)

    def detect(
        self, images: Sequence[NDArray[np.uint8]], done: Callable[[int], object] | None = None
    ) -> list[Regions]:
        """Return the regions of RGB images (height, width, 3), one entry an image, in order."""
        if not images:
            return []
        batch = torch.stack([preprocess(Pillow.fromarray(i), self.image_size) for i in images])
        with torch.inference_mode():
            found = self.network(batch.contiguous(memory_format=torch.channels_last), self.most)
        if done is not None:
            done(len(images))
        return [
            self._regions(one, (image.shape[1], image.shape[0]))
            for one, image in zip(found, images, strict=True)
        ]

    def _regions(self, found: Found, size: tuple[int, int]) -> Regions:
        scores, class_ids = found.classes.max(1)
        attribute_scores, attribute_ids = found.attributes.max(1)
        cells = torch.cat([found.features * self.scale, edges(found.boxes) * POSITION_SCALE], 1)
        return Regions(cells, found.boxes, size, class_ids, scores, attribute_ids, attribute_scores)

    def spec(self) -> dict[str, Any]:
        """Return what identifies the features, as JSON; `load` rebuilds the detector from it."""
        return {
            "network": "small",
            "layer": "feature",
            "image_size": self.image_size,
            "weights_sha256": weights_sha256(self.network),
            "scale": self.scale,
            "positions": POSITIONS,
            "position_scale": POSITION_SCALE,
            "selection": {"most": self.most, "overlaps": OVERLAPS, "windows": WINDOWS},
            "config": self.info["config"],
            "class_names": self.info["class_names"],
            "attribute_names": self.info["attribute_names"],
        }

    def save(self, folder: Path) -> None:
        """Write ``extractor.json`` and ``extractor.safetensors``."""
        write_tensors(folder / WEIGHTS_FILE, self.network.state_dict())
        write_json(folder / EXTRACTOR_FILE, {"kind": "regions", **self.spec()})

    @classmethod
    def load(cls, folder: Path) -> SmallDetector:
        """Rebuild the detector that `save` wrote into a features or run folder."""
        path, weights = folder / EXTRACTOR_FILE, folder / WEIGHTS_FILE
        spec = read_json(path)
        try:
            most, expected = spec["selection"]["most"], spec["weights_sha256"]
        except (KeyError, TypeError) as error:
            raise CapscopeError(f"{path} does not describe a detector: {error}") from error
        network = _network(spec, path, weights)
        if weights_sha256(network) != expected:
            raise CapscopeError(f"{weights} does not belong to {path}")
        return cls(network, most, spec)

    @classmethod
    def trained(cls, folder: Path, most: int) -> SmallDetector:
        """Load what `capscope.features.detector.train_small` wrote; `most` regions an image."""
        read_manifest(folder, "detector")
        info = read_json(folder / INFO_FILE)
        return cls(_network(info, folder / INFO_FILE, folder / MODEL_FILE), most, info)


def _network(info: Mapping[str, Any], path: Path, weights: Path) -> RegionNetwork:
    try:
        names = info["class_names"], info["attribute_names"]
        network = RegionNetwork(classes=len(names[0]), attributes=len(names[1]), **info["config"])
        _ = info["image_size"], info["scale"]
    except (KeyError, TypeError) as error:
        raise CapscopeError(f"{path} does not describe a small detector: {error}") from error
    fit(network, read_tensors(weights), weights)
    return network


def edges(boxes: Tensor) -> Tensor:
    """Return the distances (n, 4) of boxes in [0, 1] from the left, top, right and bottom edge."""
    return torch.cat([boxes[:, :2], 1 - boxes[:, 2:]], 1)
