"""Grids of residual networks in Caffe's form, at native size, against the original program."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from image_networks import Golden
from PIL import Image as Pillow
from torch import Tensor

from capscope.features.classifier import build_classifier
from capscope.features.grid import GridExtractor, build_extractor
from capscope.tensors import write_tensors

RELATIVE = 1e-3  # of the array's maximum, stated in the fixtures' README
FILE = "spatial/resnet_features.npz"


def values(count: int, place: int, offset: int) -> np.ndarray:
    """Return numbers in [-1, 1) by the hash that the fixtures' README states."""
    x = np.arange(count, dtype=np.uint64) * 2654435761 + 40503 * (place + 1) + offset
    x &= 0xFFFFFFFF
    for _ in range(2):
        x = ((x ^ (x >> np.uint64(16))) * 0x45D9F3B) & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2**31 - 1


def weights(name: str, offset: int) -> dict[str, Tensor]:
    state = {}
    for place, (key, tensor) in enumerate(build_classifier(name).state_dict().items()):
        drawn = values(tensor.numel(), place, offset).reshape(tensor.shape)
        if key.endswith("num_batches_tracked"):
            continue
        if tensor.ndim == 4:
            drawn *= math.sqrt(3 / tensor[0].numel())
        elif key == "fc.weight":
            drawn *= 0.01
        elif key.endswith(("running_var", "weight")):
            drawn = 1 + 0.2 * drawn
        else:
            drawn *= 0.05
        state[key] = torch.from_numpy(drawn).float()
    return state


@pytest.mark.slow
def test_pooled_maps_and_their_mean(tmp_path: Path) -> None:
    golden = Golden(FILE)
    assert golden.meta["att_size"]
    for name in golden.meta["att_size"]:
        check(golden, name, tmp_path)


def check(golden: Golden, name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, weights(name, golden.meta["hash_offset"]))
    settings = {
        "network": f"caffe_{name}",
        "weights": str(path),
        "image_size": "native",
        "scale": 1.0,
        "layer": None,
        "pool": golden.meta["att_size"][name],
    }
    extractor = build_extractor(settings)
    mean = build_extractor({**settings, "pool": 1})
    numbers = golden.keys(f"{name}/img")
    assert numbers
    for number in numbers:
        image = Pillow.fromarray(golden[f"{name}/img{number}"].numpy()).convert("RGB")
        for made, kind in ((extractor, "att"), (mean, "fc")):
            with torch.inference_mode():
                (cells,) = made(made.preprocess(image)[None])
            expected = golden[f"{name}/{kind}{number}"]
            error = (cells.reshape(expected.shape) - expected).abs().max()
            assert error <= RELATIVE * expected.abs().max()
    extractor.save(tmp_path)
    again = GridExtractor.load(tmp_path)
    assert again.spec() == extractor.spec()
    assert again.image_size is None
