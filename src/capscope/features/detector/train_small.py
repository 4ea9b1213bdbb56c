"""Training the small detector on scenes, on the maps of the trained small network.

It is told the boxes, classes and colours of the objects of the training split, and place, time and
weather of the whole, as the small network was; the maps stay as they are. At test time it sees the
image alone. Its two stages are trained one after the other, in about a minute on two cores; an
interrupted training starts again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_linear_bn_eval
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss
from tqdm import tqdm

from capscope.data.annotations import DATASET_FILE, INSTANCES_FILE, Dataset, read_karpathy
from capscope.data.entities import read_instances
from capscope.data.images import map_ahead, preprocess, read_image
from capscope.data.scenes import read_recipes
from capscope.features.backbone import one_cycle
from capscope.features.detector.small import Found, RegionNetwork, windows
from capscope.features.detector.small_detector import INFO_FILE, MODEL_FILE
from capscope.features.detector.targets import (
    ATTRIBUTE_NAMES,
    CLASS_NAMES,
    MATCH,
    Told,
    Truth,
    box_targets,
    cell_targets,
    read_truth,
    shaken,
)
from capscope.features.small import load_small
from capscope.features.supervision import IMAGE_LABELS
from capscope.files import MANIFEST, read_manifest, write_json, write_manifest, write_text
from capscope.tensors import write_tensors

METRICS_FILE = "metrics.csv"
REGIONS = 36
"""Regions an image in the last check."""
TOLD, SHAKEN = 20, 0.1
"""Boxes of objects or near them that the second stage is told of, of each image, and how near."""
PROPOSED = 12
"""Proposals among them, at most."""
FEW_WINDOWS = 10
"""Windows among the boxes of one step."""
BATCH = 64


@dataclass(frozen=True)
class Examples:
    """Maps (M, C, h, w) of the images of a split, in half precision, and what they show."""

    maps: Tensor
    truth: list[Truth]


def train_detector(
    data_dir: Path, backbone_dir: Path, settings: Mapping[str, Any], image_size: int, out: Path
) -> Path:
    """Train the detector; the same inputs give the same bytes.

    Parameters
    ----------
    data_dir, backbone_dir : Path
        Scenes, and the small network that was trained on them.
    settings : mapping
        ``params.detector``: hidden, size, bins, epochs, batch_size, learning_rate, seed.
    image_size : int
        Images are resized to a square of this many pixels.
    out : Path
        Gets ``model.safetensors``, ``model.json``, ``metrics.csv`` (of validation images: share of
        the objects that a region overlaps by 0.5, and of those whose best region has the right
        class, or colour; for all regions and for the ten best) and ``manifest.json``.

    Returns
    -------
    Path
        The manifest.
    """
    read_manifest(data_dir, "data")
    dataset = read_karpathy(data_dir / DATASET_FILE, data_dir, "scenes")
    body, info = load_small(backbone_dir)
    torch.manual_seed(settings["seed"])
    config = {
        **{"channels": info["config"]["channels"], "hidden": settings["hidden"]},
        **{"size": settings["size"], "bins": settings["bins"]},
    }
    network = RegionNetwork(classes=len(CLASS_NAMES), attributes=len(ATTRIBUTE_NAMES), **config)
    network.body.load_state_dict(body.state_dict())
    network.body.requires_grad_(False)
    network.to(memory_format=torch.channels_last)
    train, val = (
        _read_examples(network, dataset, data_dir, split, image_size) for split in ("train", "val")
    )
    rng = torch.Generator().manual_seed(settings["seed"])
    _train_cells(network, train, settings, rng)
    _train_regions(network, train, settings, rng)
    found = list(_find(network.eval(), val))
    write_tensors(out / MODEL_FILE, network.state_dict())
    write_json(
        out / INFO_FILE,
        {
            "network": "small",
            "image_size": image_size,
            "scale": _unit_scale(found),
            "config": config,
            "class_names": CLASS_NAMES,
            "attribute_names": ATTRIBUTE_NAMES,
            "supervision": "boxes, classes and colours of objects; place, time, weather of scenes",
        },
    )
    text = io.StringIO()
    scores = evaluate(found, val.truth)
    writer = csv.DictWriter(text, list(scores), lineterminator="\n")
    writer.writeheader()
    writer.writerow({name: round(value, 6) for name, value in scores.items()})
    write_text(out / METRICS_FILE, text.getvalue())
    inputs = {"data": data_dir / MANIFEST, "backbone": backbone_dir / MANIFEST}
    params = {**settings, "image_size": image_size}
    return write_manifest(out, "detector", params=params, inputs=inputs)


def _read_examples(
    network: RegionNetwork, dataset: Dataset, data_dir: Path, split: str, image_size: int
) -> Examples:
    paths = [dataset.path(image) for image in dataset.split(split)]
    pictures = map_ahead(lambda path: preprocess(read_image(path), image_size), paths, 2)
    maps, batch = [], []
    with torch.inference_mode():
        for number, picture in enumerate(
            tqdm(pictures, total=len(paths), unit="image", desc=f"maps of {split}"), 1
        ):
            batch.append(picture)
            if len(batch) == BATCH or number == len(paths):
                images = torch.stack(batch).contiguous(memory_format=torch.channels_last)
                maps.append(network.body(images).half())
                batch = []
    instances = read_instances(data_dir / INSTANCES_FILE)
    truth = read_truth(dataset, instances, read_recipes(data_dir), split)
    return Examples(torch.cat(maps).clone(), truth)


def _steps(
    parameters: Sequence[nn.Parameter],
    count: int,
    settings: Mapping[str, Any],
    rng: torch.Generator,
    stage: str,
) -> Iterator[tuple[Tensor, torch.optim.Optimizer]]:
    """Yield the images of every step and the optimiser, its learning rate set."""
    optimiser = torch.optim.AdamW(
        parameters, settings["learning_rate"], weight_decay=0.01, foreach=True
    )
    epochs = settings["epochs"]
    batches = [
        batch
        for _ in range(epochs)
        for batch in torch.split(torch.randperm(count, generator=rng), settings["batch_size"])
    ]
    for number, batch in enumerate(tqdm(batches, unit="batch", desc=stage)):
        for group in optimiser.param_groups:
            group["lr"] = settings["learning_rate"] * one_cycle(number / len(batches))
        yield batch, optimiser


def _train_cells(
    network: RegionNetwork, train: Examples, settings: Mapping[str, Any], rng: torch.Generator
) -> None:
    """Train the first stage: which cells show an object (focal loss), and its box (GIoU)."""
    height, width = train.maps.shape[-2:]
    told = [cell_targets(truth, height, width) for truth in train.truth]
    classes, boxes = (torch.stack(part) for part in zip(*told, strict=True))
    parts = (network.neighbourhood, network.cell_classes, network.cell_sides)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    for batch, optimiser in _steps(parameters, len(told), settings, rng, "proposals"):
        maps = train.maps[batch].float().contiguous(memory_format=torch.channels_last)
        logits, found = network.cells(maps)
        shown = classes[batch] >= 0
        wanted = functional.one_hot(classes[batch].clamp(min=0), len(CLASS_NAMES))
        wanted = wanted * shown.unsqueeze(-1)
        loss = sigmoid_focal_loss(logits, wanted.float(), reduction="sum") / shown.sum()
        loss = loss + generalized_box_iou_loss(found[shown], boxes[batch][shown], reduction="mean")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _train_regions(
    network: RegionNetwork, train: Examples, settings: Mapping[str, Any], rng: torch.Generator
) -> None:
    """Train the second stage: what a box shows, and where the object's own box is.

    The features are normalised over the batch, so that about half of them are active; the
    normalisation is folded into their linear layer in the end.
    """
    boxes = torch.stack(list(_told_boxes(network, train, rng)))
    told = [box_targets(truth, own) for truth, own in zip(train.truth, boxes, strict=True)]
    targets = Told(*(torch.stack(part) for part in zip(*told, strict=True)))
    whole = torch.stack([truth.whole for truth in train.truth])
    scene = nn.Linear(settings["size"], len(IMAGE_LABELS))
    norm = nn.BatchNorm1d(settings["size"])
    parts = (network.feature, norm, network.classes, network.attributes, network.shift, scene)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    for batch, optimiser in _steps(parameters, len(told), settings, rng, "regions"):
        some = TOLD + torch.randperm(len(windows()), generator=rng)[:FEW_WINDOWS]
        chosen = torch.cat([torch.arange(TOLD), some])
        classes, attributes, shift = (part[batch][:, chosen].flatten(0, 1) for part in targets)
        linear = network.linear_features(train.maps[batch].float(), list(boxes[batch][:, chosen]))
        features = torch.relu(norm(linear))
        hit = classes < len(CLASS_NAMES)
        loss = functional.cross_entropy(network.classes(features), classes)
        loss = loss + functional.cross_entropy(network.attributes(features), attributes)
        loss = loss + functional.binary_cross_entropy_with_logits(
            scene(features), whole[batch].repeat_interleave(len(chosen), 0)
        )
        loss = loss + functional.smooth_l1_loss(network.shift(features)[hit], shift[hit], beta=0.1)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    folded = fuse_linear_bn_eval(network.feature.eval(), norm.eval())
    network.feature.load_state_dict(folded.state_dict())


def _told_boxes(network: RegionNetwork, train: Examples, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield the boxes (n, 4) of each image: `TOLD` on or near objects, then the windows."""
    with torch.inference_mode():
        proposals = [
            own
            for maps in torch.split(train.maps, BATCH)
            for own in network.propose(maps.float().contiguous(memory_format=torch.channels_last))
        ]
    for truth, proposed in zip(train.truth, proposals, strict=True):
        near = shaken(truth, TOLD - min(PROPOSED, len(proposed)), SHAKEN, rng)
        yield torch.cat([proposed[:PROPOSED], near, windows()])


def _find(network: RegionNetwork, examples: Examples) -> Iterator[Found]:
    with torch.inference_mode():
        for maps in torch.split(examples.maps, BATCH):
            yield from network.find(
                maps.float().contiguous(memory_format=torch.channels_last), REGIONS
            )


def _unit_scale(found: Sequence[Found]) -> float:
    """Return the factor that brings features to a root mean square of 1, to four digits."""
    features = torch.cat([one.features for one in found]).double()
    return float(f"{float(features.pow(2).mean()) ** -0.5:.4g}")


def evaluate(found: Sequence[Found], truth: Sequence[Truth]) -> dict[str, float]:
    """Return recall at IoU 0.5, and of all objects the share with the right class, and colour."""
    scores = {}
    for name, most in (("", REGIONS), ("_of_10", 10)):
        counts = np.zeros(4)
        for regions, objects in zip(found, truth, strict=True):
            overlap, best = box_iou(objects.boxes, regions.boxes[:most]).max(1)
            hit = overlap >= MATCH
            right = regions.classes[best].argmax(1) == objects.classes
            coloured = regions.attributes[best].argmax(1) == objects.attributes
            counts += [len(hit), hit.sum(), (hit & right).sum(), (hit & coloured).sum()]
        keys = ("recall", "class_accuracy", "attribute_accuracy")
        for key, count in zip(keys, counts[1:], strict=True):
            scores[key + name] = float(count / counts[0])
    return scores
