"""The matching of BERTScore against values of bert-score 0.3.13."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from capscope.metrics.bertscore import match

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden"))
TOLERANCE = 1e-5
SUFFIX = "_hyp_weights"


@pytest.fixture(scope="module")
def arrays():
    path = GOLDEN / "metrics" / "bert_score_matching.npz"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_matching_of_given_embeddings_is_that_of_the_original(arrays):
    weightings = [name.removesuffix(SUFFIX) for name in arrays if name.endswith(SUFFIX)]
    assert weightings
    for weighting in weightings:

        def side(name, weighting=weighting):
            parts = (f"{name}_emb", f"{name}_mask", f"{weighting}_{name}_weights")
            return tuple(torch.from_numpy(arrays[part].copy()) for part in parts)

        ours = match(side("ref"), side("hyp"))
        theirs = np.stack([arrays[f"{weighting}_{letter}"] for letter in "PRF"], axis=-1)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
