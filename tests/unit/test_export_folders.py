"""Feature stores as folders with a file an image, and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from capscope.cli import capscope
from capscope.features.geometry import grid_weights
from capscope.features.regions import Regions
from capscope.features.store import create_region_store, create_store
from capscope.files import read_manifest, write_manifest

COUNTS = {5: 3, 12: 1}


@pytest.fixture
def regions(tmp_path):
    """A region store of two images, and what is in it."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for image_id, count in COUNTS.items():
        corners = torch.rand(count, 2, 2, generator=generator).sort(1).values.flatten(1)
        cells = torch.rand(count, 6, generator=generator)
        found[image_id] = Regions(cells, corners, (40 + image_id, 30))
    folder = tmp_path / "regions"
    with create_region_store(
        folder, list(found), regions=4, dim=6, dtype="float32", attributes={}, details=()
    ) as writer:
        writer.append(list(found.values()))
    write_manifest(folder, "features", params={})
    return folder, found


def exported(store, out, *options) -> None:
    arguments = ["export", "features", "--features", str(store), "--out", str(out), *options]
    done = CliRunner().invoke(capscope, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_regions_go_to_five_folders(regions, tmp_path):
    store, found = regions
    exported(store, tmp_path / "out", "--grid", "3", "--grid-mode", "cell")
    assert read_manifest(tmp_path / "out", "feature folders")["images"] == 2
    for image_id, one in found.items():
        parts = {
            name: np.load(tmp_path / "out" / name / f"{image_id}.npy")
            for name in ("fc", "box", "rel_box", "box_vec")
        }
        att = np.load(tmp_path / "out" / "att" / f"{image_id}.npz")["feat"]
        assert np.array_equal(att, one.cells)
        assert att.dtype == parts["box"].dtype == parts["box_vec"].dtype == np.float32
        np.testing.assert_allclose(parts["fc"], att.mean(0), rtol=1e-6)
        assert parts["rel_box"].dtype == np.float64
        sides = np.array([*one.size, *one.size])
        np.testing.assert_allclose(parts["box"], one.boxes.numpy() * sides, rtol=1e-6)
        np.testing.assert_allclose(parts["rel_box"], parts["box"] / sides, rtol=1e-6)
        expected = grid_weights(one.boxes, 3, "cell")
        np.testing.assert_allclose(parts["box_vec"], expected, rtol=1e-5, atol=1e-7)


def test_the_same_store_gives_the_same_bytes(regions, tmp_path):
    for name in ("one", "two"):
        exported(regions[0], tmp_path / name)
    files = [
        json.loads((tmp_path / name / "manifest.json").read_text())["files"]
        for name in ("one", "two")
    ]
    assert files[0] == files[1]


def test_grids_go_to_maps_and_their_mean(tmp_path):
    cells = torch.rand(2, 6, 5)
    attributes = {"grid": [2, 3]}
    with create_store(
        tmp_path / "grid", [7, 9], cells=6, dim=5, dtype="float32", attributes=attributes
    ) as writer:
        writer.append(cells)
    write_manifest(tmp_path / "grid", "features", params={})
    exported(tmp_path / "grid", tmp_path / "out")
    found = np.load(tmp_path / "out" / "att" / "9.npz")["feat"]
    assert np.array_equal(found, cells[1].view(2, 3, 5))
    mean = np.load(tmp_path / "out" / "fc" / "9.npy")
    np.testing.assert_allclose(mean, cells[1].mean(0), rtol=1e-6)
    assert not (tmp_path / "out" / "box").exists()
