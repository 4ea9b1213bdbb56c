"""Grids of RegNetX-400MF against the original program's image encoder."""

import numpy as np
import pytest
import torch
from image_networks import Golden
from PIL import Image as Pillow
from torchvision.models import regnet_x_400mf

from capscope.features.grid import GridExtractor, build_extractor
from capscope.tensors import write_tensors

ABSOLUTE = 1e-5  # stated in the fixtures' README


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("rnn_family/regnet.npz")


@pytest.fixture(scope="module")
def extractor(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> GridExtractor:
    """Return the encoder as its constructor leaves it: after a look at noise in training mode."""
    images = golden["images_u8"]
    torch.manual_seed(golden.meta["encoder_seed"])
    whole = regnet_x_400mf(weights=None)
    whole.train()(torch.randn(2, *images.shape[1:]))
    path = tmp_path_factory.mktemp("regnet") / "regnet.safetensors"
    write_tensors(path, whole.state_dict())
    for name in golden.keys("check."):
        tensor = whole.state_dict()[name].double()
        sums = torch.stack([tensor.sum(), tensor.abs().sum()])
        if not torch.allclose(sums, golden[f"check.{name}"], rtol=1e-6, atol=1e-6):
            pytest.skip(f"this torch draws other random weights ({name})")
    size = images.shape[-1]
    return build_extractor(
        {
            "network": "regnet_x_400mf",
            "weights": str(path),
            "image_size": size,
            "scale": 1.0,
            "layer": None,
            "pool": None,
        }
    )


def pictures(golden: Golden) -> list[Pillow.Image]:
    return [Pillow.fromarray(np.moveaxis(one, 0, 2)) for one in golden["images_u8"].numpy()]


def test_images_are_normalised(golden: Golden, extractor: GridExtractor) -> None:
    expected = golden["normalized_pixels_0_0"]
    found = extractor.preprocess(pictures(golden)[0])[:, : expected.shape[1], : expected.shape[2]]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_maps_of_the_last_block(golden: Golden, extractor: GridExtractor) -> None:
    images = torch.stack([extractor.preprocess(picture) for picture in pictures(golden)])
    expected = golden["c5_eval"]
    assert (extractor.channels, *extractor.grid) == tuple(expected.shape[1:])
    with torch.inference_mode():
        maps = extractor.to_maps(extractor(images))
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=ABSOLUTE)
    assert bool((maps >= 0).all()) == golden.meta["has_relu_nonneg"]
    floats = golden["images_u8"].float() / 255
    same = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.inference_mode():
        maps = extractor.network((floats - same) / deviation)
    torch.testing.assert_close(maps, golden["c5_eval_float_input"], rtol=1e-5, atol=ABSOLUTE)
