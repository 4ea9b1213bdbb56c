"""Training the small grid network on scenes, from their masks.

The network learns from more than captions: every grid cell is told which objects it shows, from
the exact masks, and in which colours; the whole image, its place, time and weather. That stands in
for ImageNet and for the object and attribute labels of region detectors, and it is said wherever a
number depends on it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval
from tqdm import tqdm

from capscope.data.annotations import DATASET_FILE, read_karpathy
from capscope.data.images import IMAGENET_MEAN, IMAGENET_STD
from capscope.data.scenes import read_recipes
from capscope.data.scenes.lexicon import PLACES
from capscope.features.segments import CellClassifier
from capscope.features.small import INFO_FILE, WEIGHTS_FILE, SmallNetwork, block_ends
from capscope.features.supervision import CELL_LABELS, IMAGE_LABELS, Examples, read_examples
from capscope.files import (
    MANIFEST,
    digest,
    read_manifest,
    sha256_of,
    write_json,
    write_manifest,
    write_text,
)
from capscope.tensors import read_metadata, read_tensors, write_tensors

METRICS_FILE = "metrics.csv"
POSITIONS = 4
"""Position channels that the extractor appends behind the network."""
POSITION_SCALE = 4.0
"""Their size. Beside 128 channels of root mean square 1, a size of 1 is hardly seen in training."""
BACKGROUND_WEIGHT = 0.3
"""Weight of a cell that shows background only; a cell that shows nothing else counts 1."""
SMALLEST_SCALE = 0.01
"""Lower bound of the scale of batch normalisation: a positive scale commutes with pooling."""


class TrainedNetwork(nn.Module):
    """A `SmallNetwork` in training: batch normalisation after pooling, and three heads.

    Pooling before normalisation and rectifier is two times cheaper; it is the same function as
    long as the scale of the normalisation is positive, which `train_backbone` sees to.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.ends = block_ends(channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False)
            for before, after in pairwise([3, *channels])
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for after in channels)
        self.classes, self.colours = (
            nn.Conv2d(channels[-1], len(labels), 1) for labels in CELL_LABELS
        )
        self.whole = nn.Linear(channels[-1], len(IMAGE_LABELS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of classes and colours (B, L, h, w) and of the whole image (B, K)."""
        maps = images
        for (convolution, norm), pooled in zip(self.layers(), self.ends, strict=True):
            maps = convolution(maps)
            if pooled:
                maps = functional.max_pool2d(maps, 2)
            maps = torch.relu(norm(maps))
        return self.classes(maps), self.colours(maps), self.whole(maps.mean((2, 3)))

    def layers(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Yield every convolution with its normalisation."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            yield convolution, norm

    def folded(self, channels: list[int]) -> SmallNetwork:
        """Return the plain network, the normalisation folded into its convolutions."""
        network = SmallNetwork(channels)
        plain = [layer for layer in network if isinstance(layer, nn.Conv2d)]
        for target, (convolution, norm) in zip(plain, self.layers(), strict=True):
            fused = fuse_conv_bn_eval(convolution.eval(), norm.eval())
            target.load_state_dict(fused.state_dict())
        return network.eval()


def train_backbone(data_dir: Path, settings: Mapping[str, Any], out: Path) -> Path:
    """Train the network; resumes after an interruption and ends with the same bytes.

    Parameters
    ----------
    data_dir : Path
        From `capscope.data.scenes.write_scenes`.
    settings : mapping
        ``params.backbone``: channels, epochs, batch_size, learning_rate, seed.
    out : Path
        Gets ``model.safetensors``, ``model.json``, ``segments.safetensors`` (the head that tells
        the classes of cells, which makes segments), ``metrics.csv`` (a row per epoch: loss, F1 of
        classes and of colours in validation images) and ``manifest.json``; until then ``state/``
        holds the last epoch.

    Returns
    -------
    Path
        The manifest.
    """
    read_manifest(data_dir, "data")
    channels, epochs = list(settings["channels"]), int(settings["epochs"])
    key = digest({**settings, "data": sha256_of(data_dir / MANIFEST)})
    dataset = read_karpathy(data_dir / DATASET_FILE, data_dir, "scenes")
    recipes = read_recipes(data_dir)
    blocks = sum(block_ends(channels))
    train = read_examples(dataset, recipes, "train", blocks)
    val = read_examples(dataset, recipes, "val", blocks)

    torch.manual_seed(settings["seed"])
    model = TrainedNetwork(channels).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        model.parameters(), settings["learning_rate"], weight_decay=0.01, foreach=True
    )
    rows = _load_state(out, key, model, optimiser)
    for epoch in range(len(rows), epochs):
        loss = _train_epoch(model, optimiser, train, settings, epoch)
        rows.append({"epoch": epoch + 1, "loss": loss, **evaluate(model, val)})
        _save_state(out, key, model, optimiser, rows)
    manifest = _publish(out, model, settings, rows, data_dir)
    shutil.rmtree(out / "state")
    return manifest


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images (B, 3, S, S) as the network takes them, channels last."""
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    scaled = (images.float() / 255 - mean) / deviation
    return scaled.contiguous(memory_format=torch.channels_last)


def _train_epoch(
    model: TrainedNetwork,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    settings: Mapping[str, Any],
    epoch: int,
) -> float:
    """Train one epoch; its order depends on seed and epoch only. Return the mean loss."""
    model.train()
    size = settings["batch_size"]
    order_rng = torch.Generator().manual_seed(settings["seed"] * 1_000_003 + epoch)
    order = torch.randperm(len(examples.images), generator=order_rng)
    batches = torch.split(order, size)
    total = 0.0
    for number, batch in enumerate(tqdm(batches, unit="batch", desc=f"epoch {epoch + 1}")):
        done = (epoch + number / len(batches)) / settings["epochs"]
        for group in optimiser.param_groups:
            group["lr"] = settings["learning_rate"] * one_cycle(done)
        images, classes, colours, whole = (part[batch] for part in examples)
        images = normalised(images)
        if torch.rand((), generator=order_rng) < 0.5:
            images, classes, colours = images.flip(3), classes.flip(3), colours.flip(3)
        said = model(images)
        loss = _cell_loss(said[0], classes) + _cell_loss(said[1], colours)
        loss = loss + functional.binary_cross_entropy_with_logits(said[2], whole)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            for _, norm in model.layers():
                norm.weight.clamp_(min=SMALLEST_SCALE)
        total += loss.item() * len(batch)
    return total / len(order)


def _cell_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Return the cross-entropy of the cells, those with objects weighing more."""
    weights = 1 - (1 - BACKGROUND_WEIGHT) * shares[:, 0]
    entropy = -(shares * functional.log_softmax(logits, 1)).sum(1)
    return (weights * entropy).sum() / weights.sum()


def one_cycle(done: float) -> float:
    """Return the learning rate, relative to its peak, when `done` in [0, 1] of training is."""
    if done < 0.2:
        return 0.1 + 0.9 * done / 0.2
    return 0.5 + 0.5 * math.cos(math.pi * (done - 0.2) / 0.8)


@torch.no_grad()
def evaluate(model: TrainedNetwork, examples: Examples) -> dict[str, float]:
    """Return F1 of the classes and of the colours that an image shows, and accuracy of places.

    An image is said to show what at least one of its cells most probably shows.
    """
    model.eval()
    outputs = [model(normalised(batch)) for batch in torch.split(examples.images, 64)]
    scores = {}
    for name, part, true in (("class_f1", 0, examples.classes), ("colour_f1", 1, examples.colours)):
        best = torch.cat([output[part] for output in outputs]).argmax(1).flatten(1)
        said = functional.one_hot(best, true.shape[1]).amax(1)[:, 1:] > 0
        shown = true.flatten(2).amax(2)[:, 1:] > 0
        total = (said.sum() + shown.sum()).clamp(min=1)
        scores[name] = float(2 * (said & shown).sum() / total)
    places = torch.cat([output[2] for output in outputs])[:, : len(PLACES)].argmax(1)
    correct = places == examples.whole[:, : len(PLACES)].argmax(1)
    return {**scores, "place_accuracy": float(correct.float().mean())}


def _load_state(
    out: Path, key: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> list[dict[str, float]]:
    """Put the last finished epoch back; return the metrics so far. Another key starts anew."""
    path = out / "state" / "state.safetensors"
    if not path.exists():
        return []
    tensors, metadata = read_tensors(path), read_metadata(path)
    if metadata["key"] != key:
        return []
    rows: list[dict[str, float]] = json.loads(metadata["rows"])
    model.load_state_dict({n[6:]: t for n, t in tensors.items() if n.startswith("model.")})
    saved = optimiser.state_dict()
    saved["state"] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, field = name.split(".")
            saved["state"].setdefault(int(number), {})[field] = tensor
    optimiser.load_state_dict(saved)
    return rows


def _save_state(
    out: Path,
    key: str,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    rows: list[dict[str, float]],
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{field}": value for field, value in entry.items()}
    metadata = {"key": key, "rows": json.dumps(rows)}
    write_tensors(out / "state" / "state.safetensors", tensors, metadata)


def _publish(
    out: Path,
    model: TrainedNetwork,
    settings: Mapping[str, Any],
    rows: list[dict[str, float]],
    data_dir: Path,
) -> Path:
    """Fold the normalisation in and write the network."""
    channels = list(settings["channels"])
    network = model.folded(channels)
    write_tensors(out / WEIGHTS_FILE, network.state_dict())
    CellClassifier.of(model.classes, CELL_LABELS[0]).save(out)
    write_json(
        out / INFO_FILE,
        {
            "network": "small",
            "layer": f"pool{sum(block_ends(channels))}",
            "positions": POSITIONS,
            "position_scale": POSITION_SCALE,
            "config": {"channels": channels},
            "supervision": "object masks, colours, place, time and weather of scenes",
        },
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: round(v, 6) for k, v in row.items()} for row in rows)
    write_text(out / METRICS_FILE, text.getvalue())
    return write_manifest(
        out, "backbone", params=dict(settings), inputs={"data": data_dir / MANIFEST}
    )
