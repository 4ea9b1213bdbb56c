"""A prepared data set of small pictures, a small random backbone, and parameters for both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from bad_images import picture
from safetensors.torch import save_file

from capscope.data.prepare import prepare_dataset
from capscope.features.small import SmallNetwork
from capscope.files import write_json, write_manifest

CHANNELS = [4, 8]


def extraction_data(folder: Path, count: int, batch_size: int) -> dict[str, Any]:
    """Write ``images``, ``data`` and ``backbone`` below `folder`; return the parameters."""
    root = folder / "images"
    root.mkdir(parents=True)
    entries = []
    for number in range(count):
        picture(30 + number % 9, 40).save(root / f"{number}.png")
        split = "train" if number < count - 3 else "test"
        one = {"filename": f"{number}.png", "cocoid": 1000 - number, "split": split}
        entries.append(one | {"sentences": [{"raw": "a cat"}]})
    (folder / "dataset.json").write_text(json.dumps({"images": entries}))
    torch.manual_seed(0)
    backbone = folder / "backbone"
    backbone.mkdir()
    save_file(SmallNetwork(CHANNELS).state_dict(), backbone / "model.safetensors")
    config = {"channels": CHANNELS}
    info = {"layer": "pool2", "positions": 4, "position_scale": 2.0, "config": config}
    write_json(backbone / "model.json", info)
    write_manifest(backbone, "backbone", params={})
    params: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parents[2] / "params.yaml").read_text("utf-8")
    )
    own = {"annotations": str(folder / "dataset.json"), "images": str(root), "instances": None}
    params["dataset"] |= {
        "name": "toy",
        "reader": "karpathy",
        "karpathy": own,
        "evaluate": ["test"],
    }
    params["features"]["grid"] |= {"image_size": 32, "batch_size": batch_size, "dtype": "float32"}
    prepare_dataset(folder / "data", params["dataset"])
    return params
