"""Pictures with features of small random networks: a grid with segments, and regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from extraction_data import CHANNELS, extraction_data

from capscope.features.detector.small import RegionNetwork
from capscope.features.extract import prepare_features
from capscope.features.extract_regions import prepare_regions
from capscope.features.segments import CellClassifier
from capscope.files import write_json, write_manifest
from capscope.params import Params
from capscope.tensors import write_tensors

SEGMENTS = ("cat", "dog", "sky")
DETECTOR = {"channels": CHANNELS, "hidden": 8, "size": 6, "bins": 2}


def small_features(folder: Path, count: int = 6) -> Params:
    """Write ``images``, ``data``, ``grid`` and ``regions`` below `folder`; return the parameters.

    The features are what the workflow makes: networks lie beside them.
    """
    params = extraction_data(folder, count, batch_size=4)
    CellClassifier(CHANNELS[-1], SEGMENTS).save(folder / "backbone")
    params["features"]["grid"]["segments"] = "predicted"
    params["features"]["regions"] |= {"image_size": 32, "regions": 4, "dtype": "float32"}
    prepare_features(folder / "grid", folder / "data", params, folder / "backbone")
    _write_detector(folder / "detector")
    prepare_regions(folder / "regions", folder / "data", params, folder / "detector")
    return params


def _write_detector(folder: Path) -> None:
    torch.manual_seed(3)
    names: dict[str, Any] = {"class_names": ["cat", "dog"], "attribute_names": ["red", "blue"]}
    network = RegionNetwork(classes=2, attributes=2, **DETECTOR)
    folder.mkdir()
    write_tensors(folder / "model.safetensors", network.state_dict())
    write_json(folder / "model.json", {**names, "image_size": 32, "scale": 1.0, "config": DETECTOR})
    write_manifest(folder, "detector", params={})
