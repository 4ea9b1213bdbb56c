"""Grid features: a convolutional network cut before its classifier, cell by cell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from capscope.data.images import preprocess
from capscope.errors import CapscopeError
from capscope.features.classifier import CUTS, cut, own_weights
from capscope.features.segments import SEGMENTS_FILE, CellClassifier
from capscope.features.weights import convolutional, download_weights, read_state
from capscope.files import read_json, write_json
from capscope.tensors import fit, read_tensors, write_tensors

EXTRACTOR_FILE = "extractor.json"
WEIGHTS_FILE = "extractor.safetensors"


class GridExtractor(nn.Module):
    """Turns images into grid cells.

    The network is plain (image -> maps); scale and position channels come after it, so that
    image-level relevance sees nothing but a convolutional network.

    Attributes
    ----------
    network : nn.Module
        (B, 3, S, S) -> (B, C, h, w); convolutions, rectifiers that are not in place, pooling.
    image_size : int or None
        Images are resized to a square of this many pixels; None: they keep their size, and the
        network ends with pooling to a fixed grid.
    grid : (h, w)
    channels, dim : int
        C, and C plus the position channels.
    segmenter : CellClassifier or None
        Tells the classes of the cells; None where features have no segments.
    """

    network: nn.Module
    coordinates: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        image_size: int | None,
        *,
        layer: str,
        scale: float = 1.0,
        positions: int = 0,
        position_scale: float = 1.0,
        config: Mapping[str, Any] = {},
        segmenter: CellClassifier | None = None,
    ) -> None:
        super().__init__()
        if positions and (positions % 2 or positions < 4):
            raise ValueError(f"positions = {positions}: give 0, 4, 6, ..., half of them an axis")
        self.name, self.image_size, self.layer = name, image_size, layer
        self.scale, self.position_scale = scale, position_scale
        self.positions, self.config = positions, dict(config)
        self.network = network.eval().requires_grad_(False)
        self.segmenter = segmenter
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        self.channels, height, width = _output_shape(network, image_size)
        self.grid = (height, width)
        self.dim = self.channels + positions
        coordinates = position_channels(self.grid, positions) * position_scale
        self.register_buffer("coordinates", coordinates, persistent=False)

    def preprocess(self, image: Pillow.Image) -> Tensor:
        """Return an RGB image as the network takes it: (3, S, S), or of its own size."""
        return preprocess(image, self.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return the cells (B, h*w, dim) of preprocessed images (B, 3, S, S)."""
        cells: Tensor = self.network(images).flatten(2).transpose(1, 2) * self.scale
        if self.positions:
            cells = torch.cat([cells, self.coordinates.expand(len(cells), -1, -1)], -1)
        return cells

    def segments(self, cells: Tensor) -> Tensor | None:
        """Return the segments (B, h*w, S) of cells (B, h*w, dim), if there is a segmenter."""
        if self.segmenter is None:
            return None
        own = cells[..., : self.channels].to(self.segmenter.linear.weight.device)
        found: Tensor = self.segmenter(own / self.scale)
        return found

    def to_maps(self, cells: Tensor) -> Tensor:
        """Lay values of cells (..., h*w, dim) out as the network's maps (..., C, h, w).

        Position channels are left out. Relevance passes as it is (a factor keeps relevance); a
        gradient must be multiplied by `scale` besides.
        """
        maps = cells[..., : self.channels].transpose(-1, -2)
        return maps.reshape(*maps.shape[:-1], *self.grid)

    def spec(self) -> dict[str, Any]:
        """Return what identifies the features, as JSON; `load` rebuilds the extractor from it."""
        spec = {
            "network": self.name,
            "layer": self.layer,
            "image_size": self.image_size,
            "grid": list(self.grid),
            "weights_sha256": weights_sha256(self.network),
            "scale": self.scale,
            "positions": self.positions,
            "position_scale": self.position_scale,
            "config": self.config,
        }
        if self.segmenter is not None:
            names, weights = list(self.segmenter.names), weights_sha256(self.segmenter)
            spec["segments"] = {"of": "cells", "classes": names, "weights_sha256": weights}
        return spec

    def save(self, folder: Path) -> None:
        """Write ``extractor.json``, ``extractor.safetensors`` and the segmenter's, if any."""
        write_tensors(folder / WEIGHTS_FILE, self.network.state_dict())
        if self.segmenter is None:
            (folder / SEGMENTS_FILE).unlink(missing_ok=True)
        else:
            self.segmenter.save(folder)
        write_json(folder / EXTRACTOR_FILE, self.spec())

    @classmethod
    def load(cls, folder: Path) -> GridExtractor:
        """Rebuild the extractor that `save` wrote into a features or run folder."""
        path = folder / EXTRACTOR_FILE
        spec = read_json(path)
        try:
            extractor = cls(
                spec["network"],
                _network(spec["network"], spec["config"]),
                spec["image_size"],
                layer=spec["layer"],
                scale=spec["scale"],
                positions=spec["positions"],
                position_scale=spec["position_scale"],
                config=spec["config"],
                segmenter=CellClassifier.load(folder) if "segments" in spec else None,
            )
            expected = spec["weights_sha256"]
        except (KeyError, TypeError) as error:
            raise CapscopeError(f"{path} does not describe a grid extractor: {error}") from error
        fit(extractor.network, read_tensors(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
        if weights_sha256(extractor.network) != expected:
            raise CapscopeError(f"{folder / WEIGHTS_FILE} does not belong to {path}")
        return extractor


def build_extractor(settings: Mapping[str, Any], backbone: Path | None = None) -> GridExtractor:
    """Build the extractor that the parameters ``features.grid`` name.

    Parameters
    ----------
    settings : mapping
        ``network``, ``weights`` (trained, download, or the path of a state dict), ``image_size``,
        ``scale`` (a number; ``rms`` is measured later, by `capscope.features.extract`), ``layer``
        and ``pool`` (of networks of torchvision; None: as they come), ``segments``.
    backbone : Path, optional
        Folder of the network that ``capscope backbone`` trained, for ``weights: trained``.
    """
    from capscope.params import expand_path

    name, weights, size = settings["network"], settings["weights"], settings["image_size"]
    scale = 1.0 if settings["scale"] == "rms" else float(settings["scale"])
    segments = settings.get("segments", "none")
    if (name == "small") != (weights == "trained"):
        raise CapscopeError(
            f"features.grid: network {name!r} with weights {weights!r}; 'trained' goes with "
            "'small', 'download' or a path with the others"
        )
    if name == "small":
        if backbone is None:
            raise CapscopeError("features.grid.network is small: give the folder of --backbone")
        from capscope.features.small import load_small

        small, info = load_small(backbone)
        told = segments == "auto" and (backbone / SEGMENTS_FILE).exists()
        segmenter = CellClassifier.load(backbone) if told or segments == "predicted" else None
        return GridExtractor(name, small, size, scale=scale, segmenter=segmenter, **info)
    if segments == "predicted":
        raise CapscopeError(
            "features.grid.segments is 'predicted': only the small network predicts segments. "
            "Add those of others to a finished store with `capscope features --import`"
        )
    if size == NATIVE and settings["pool"] is None:
        raise CapscopeError("features.grid: image_size native needs pool, the cells of each side")
    config = {key: settings[key] for key in ("layer", "pool") if settings[key] is not None}
    network = _network(name, config)
    if weights == "download":
        state, where = download_weights(name)
    else:
        where = str(expand_path(weights))
        state = read_state(Path(where))
    cut_off = name in LAYERS and not config
    own = convolutional(state) if cut_off else own_weights(network, state, name)
    fit(network, own, where)
    layer = settings["layer"] or LAYERS.get(name) or CUTS[name]
    pixels = None if size == NATIVE else size
    return GridExtractor(name, network, pixels, layer=layer, scale=scale, config=config)


NATIVE = "native"
"""In place of a size: images as they are."""
LAYERS = {"vgg16": "conv5_3", "squeezenet1_0": "fire9"}
"""Networks that are one stack, with the last layer: 14 x 14 x 512 and 13 x 13 x 512 at 224."""


def _network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """Return a network whose weights are to be loaded."""
    if name == "small":
        from capscope.features.small import SmallNetwork

        small: nn.Module = SmallNetwork(**config)
        return small
    if name == "vgg":
        from capscope.features.vgg import VGG

        stack: nn.Module = VGG(**config)
        return stack
    if name not in LAYERS or config:
        return cut(name, **config)
    import torchvision

    with torch.device("meta"):  # the classifier, most of VGG16, is never made
        whole = getattr(torchvision.models, name)(weights=None)
    layers = whole.features[:-1] if name == "vgg16" else whole.features
    network: nn.Module = layers.to_empty(device="cpu")
    return network


def _output_shape(network: nn.Module, image_size: int | None) -> tuple[int, int, int]:
    # A real forward pass: the first activation on the device "meta" imports torch._dynamo, which
    # takes longer than VGG16 and would cost every command that opens an extractor 4 seconds.
    try:
        with torch.inference_mode():
            side = image_size or 224
            shape = network(torch.zeros(1, 3, side, side)).shape
    except RuntimeError as error:
        if "memory" in str(error):
            raise
        raise CapscopeError(f"features.grid.image_size = {image_size}: {error}") from error
    if len(shape) != 4:
        raise CapscopeError(
            f"features.grid.layer: its output of shape {tuple(shape)} is no map (B, C, h, w)"
        )
    return int(shape[1]), int(shape[2]), int(shape[3])


def position_channels(grid: tuple[int, int], count: int) -> Tensor:
    """Return where each cell is: (h*w, count) weights, half of them for columns, half for rows.

    Each half interpolates linearly between evenly spaced stations, so that its weights are
    not negative and add up to 1; with two stations they are (1 - x, x).
    """
    stations = count // 2
    if not stations:
        return torch.empty(grid[0] * grid[1], 0)
    centres = torch.linspace(0, 1, stations)
    axes = []
    for cells in grid:
        places = torch.linspace(0, 1, cells) if cells > 1 else torch.zeros(1)
        distance = (places[:, None] - centres).abs() * (stations - 1)
        axes.append((1 - distance).clamp_min(0))
    rows, columns = axes
    height, width = grid
    return torch.cat(
        [
            columns.expand(height, width, stations).flatten(0, 1),
            rows[:, None].expand(height, width, stations).flatten(0, 1),
        ],
        -1,
    )


def weights_sha256(network: nn.Module) -> str:
    """Return one hash over names and values of all weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
