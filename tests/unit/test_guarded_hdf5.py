"""HDF5 files of others are read in a process that can be given up, and never beyond themselves."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from capscope.features.importing.hdf5 import GuardedHdf5
from capscope.features.importing.sources import DamagedFeaturesError


def test_a_file_that_hangs_is_given_up_and_the_next_is_read(tmp_path: Path) -> None:
    hanging, good = tmp_path / "hanging.hdf5", tmp_path / "good.hdf5"
    os.mkfifo(hanging)  # opening waits for a writer that never comes
    with h5py.File(good, "w") as file:
        file["a"] = np.arange(6).reshape(2, 3)
    reader = GuardedHdf5(seconds=20)
    try:
        assert reader.names(good) == ["a"]
        reader.seconds = 0.5
        with pytest.raises(DamagedFeaturesError, match=r"hanging.*not read within 0\.5 seconds"):
            reader.names(hanging)
        reader.seconds = 20
        assert reader.read(good, ["a"])["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(DamagedFeaturesError, match="no dataset b"):
            reader.read(good, ["b"])
    finally:
        reader.close()


def test_what_leads_out_of_a_file_is_not_read(tmp_path: Path) -> None:
    path, secret = tmp_path / "grids.hdf5", tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(16)))
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["a"] = np.zeros(4, np.float32)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "a", shape=(4,))
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("other.hdf5", "a")
        file.create_dataset("outside", (4,), "f4", external=[(secret, 0, 16)])
        file.create_virtual_dataset("virtual", layout)
        file.create_group("group")
    reader = GuardedHdf5(seconds=20)
    wrong = {"link": "link to", "outside": "another file", "virtual": "another", "group": "no data"}
    try:
        for name, message in wrong.items():
            with pytest.raises(DamagedFeaturesError, match=rf"grids\.hdf5: .*{name}.* {message}"):
                reader.read(path, [name])
    finally:
        reader.close()


def test_a_dataset_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("7_features", (1 << 40, 8), "f4", chunks=(1024, 8))
    reader = GuardedHdf5(seconds=20)
    try:
        with pytest.raises(DamagedFeaturesError, match="of type float32 and shape"):
            reader.read(path, ["7_features"])
    finally:
        reader.close()
