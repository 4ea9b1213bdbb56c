"""A TSV in the layout of the 10-100 release against the arrays made of it: golden/spatial."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from capscope.features.importing.tsv import TsvSource

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden")) / "spatial"


def test_every_line_is_the_arrays_made_of_it() -> None:
    path = FOLDER / "bottom_up.npz"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    with np.load(path) as arrays:
        expected = {key: arrays[key] for key in arrays.files}
    source = TsvSource(FOLDER / json.loads(str(expected["meta"]))["tsv"])
    ids = {key.partition("/")[0] for key in expected if "/" in key}
    seen = set()
    try:
        for entry in list(source.scan()):
            seen.add(entry.name)
            line = source.decode(entry)
            np.testing.assert_array_equal(line.cells, expected[f"{entry.name}/att"])
            np.testing.assert_array_equal(line.boxes, expected[f"{entry.name}/box"])
            np.testing.assert_allclose(
                line.cells.mean(0), expected[f"{entry.name}/fc"], atol=1e-7, rtol=1e-6
            )
    finally:
        source.close()
    assert seen == ids
