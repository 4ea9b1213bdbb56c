"""Detectors with published weights, by their parameters and from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from capscope.errors import CapscopeError
from capscope.features.detector.coco import (
    CLASS_NAMES,
    WEIGHTS_ADDRESS,
    CocoNetwork,
    current_names,
)
from capscope.features.detector.inputs import Preparation
from capscope.features.detector.network import BottomUpNetwork, Dimensions
from capscope.features.detector.published import WHERE_FROM, read_published
from capscope.features.detector.region_detector import RegionDetector, Rule
from capscope.features.device import chosen_precision, compute_device
from capscope.features.grid import EXTRACTOR_FILE, WEIGHTS_FILE
from capscope.features.regions import read_names
from capscope.features.weights import download_state, read_state
from capscope.files import read_json
from capscope.params import expand_path
from capscope.tensors import fit, read_tensors


def published_detector(settings: Mapping[str, Any]) -> RegionDetector:
    """Build the detector that the parameters ``features.regions`` name.

    Parameters
    ----------
    settings : mapping
        ``network`` (bottom_up or coco), ``weights`` (path; download for coco), ``regions``,
        ``precision``, ``selection`` and the section of the network.
    """
    name, weights = settings["network"], settings["weights"]
    own = settings[name]
    rule = Rule(**{**settings["selection"], "most": settings["regions"]})
    config = {key: own[key] for key in ("short_side", "long_side", "proposals")}
    if name == "coco":
        if weights == "download":
            state, where = download_state(WEIGHTS_ADDRESS, "features.regions.weights"), weights
        else:
            where = str(expand_path(weights))
            state = read_state(Path(where))
        state = current_names(state)
        network: nn.Module = CocoNetwork(**config)
        names: dict[str, Any] = {"class_names": list(CLASS_NAMES)}
    else:
        if weights in ("download", "trained"):
            raise CapscopeError(f"features.regions.weights is {weights!r}. {WHERE_FROM}")
        where = str(expand_path(weights))
        state = read_published(Path(where), own["sha256"])
        config["backend"] = own["backend"]
        sizes = Dimensions.of(state)
        network = bottom_up_network(sizes, config)
        # A detector without attributes takes the weights of one with them.
        state = {key: tensor for key, tensor in state.items() if key in network.state_dict()}
        names = {
            "class_names": _names(own["object_names"], sizes.classes),
            "attribute_names": _names(own["attribute_names"], sizes.attributes),
        }
    fit(network, state, where)
    precision = chosen_precision(settings["precision"], compute_device())
    return _detector(name, network, rule, config, names, own["batch_size"], precision)


def _detector(
    name: str,
    network: nn.Module,
    rule: Rule,
    config: Mapping[str, Any],
    names: Mapping[str, Any],
    batch_size: int,
    precision: str = "float32",
) -> RegionDetector:
    facts = {
        "network": name,
        "layer": "fc7" if name == "coco" else "res5",
        "image_size": [config["short_side"], config["long_side"]],
        "config": {**config, "batch_size": batch_size},
        **{key: value for key, value in names.items() if value},
    }
    return RegionDetector(network, rule, facts, batch_size=batch_size, precision=precision)


def bottom_up_network(sizes: Dimensions, config: Mapping[str, Any]) -> nn.Module:
    """Return the network of the back end that ``config.backend`` names, to be given weights."""
    prepare = Preparation(config["short_side"], config["long_side"])
    if config["backend"] == "torchvision":
        return BottomUpNetwork(sizes, prepare, proposals=config["proposals"])
    try:
        from capscope.features.detector.detectron2_backend import Detectron2Network
    except ImportError as error:
        raise CapscopeError(
            f"features.regions.bottom_up.backend is detectron2, which cannot be imported ({error})."
            " envs/detectron2.yaml installs it; the back end torchvision gives the same regions"
        ) from error
    return Detectron2Network(sizes, prepare, proposals=config["proposals"])


def load_detector(folder: Path) -> RegionDetector:
    """Rebuild the detector that `RegionDetector.save` wrote into a features or run folder."""
    path = folder / EXTRACTOR_FILE
    spec = read_json(path)
    state = read_tensors(folder / WEIGHTS_FILE)
    try:
        name, config = spec["network"], dict(spec["config"])
        batch_size = config.pop("batch_size")
        rule = Rule(**{k: v for k, v in spec["selection"].items() if k != "proposals"})
        if name == "coco":
            network: nn.Module = CocoNetwork(**config)
        else:
            network = bottom_up_network(Dimensions.of(state), config)
    except (KeyError, TypeError) as error:
        raise CapscopeError(f"{path} does not describe a detector: {error}") from error
    fit(network, state, folder / WEIGHTS_FILE)
    names = {key: spec.get(key) for key in ("class_names", "attribute_names")}
    detector = _detector(name, network, rule, config, names, batch_size)
    if detector.spec()["weights_sha256"] != spec.get("weights_sha256"):
        raise CapscopeError(f"{folder / WEIGHTS_FILE} does not belong to {path}")
    return detector


def _names(path: str | None, count: int) -> list[str] | None:
    """Return the word list of a file, if one is given and the weights know any class."""
    if path is None or not count:
        return None
    names = read_names(path)
    if len(names) != count:
        raise CapscopeError(f"{path} has {len(names)} names, the weights know {count}")
    return names
