"""The captioner of the fixtures on explanations in latent space."""

import json
from functools import cache
from typing import Any

from image_networks import Golden
from torch import Tensor

from capscope.importers.lrp_ic import from_original
from capscope.models.gridtd import GridTD


@cache
def latent_captioner() -> tuple[GridTD, Tensor]:
    """Return the captioner in evaluation mode, and the features (images, N, D)."""
    golden = Golden("latent_xic/model.npz")
    captioner, network = from_original("gridtd", golden.weights("w/"))
    assert isinstance(captioner, GridTD)
    assert not network
    return captioner.eval(), golden["features"]


def captions_of(golden: Golden, name: str) -> Any:
    """Return what a JSON entry holds."""
    return json.loads(str(golden.arrays[name]))


def numbers(golden: Golden, prefix: str) -> list[str]:
    """Return the numbers of arrays that are called `prefix` and a number."""
    found = [key for key in golden.keys(prefix) if key.isdigit()]
    assert found, f"the fixture holds no {prefix}"
    return found
