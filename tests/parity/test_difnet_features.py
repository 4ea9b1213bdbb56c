"""Grid features and segments as DIFNet's loader gives them: golden/difnet/data_case.npz."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch

from capscope.data.annotations import Dataset, Image, karpathy_json
from capscope.features.importing.write import import_features
from capscope.features.store import FeatureStore
from capscope.files import write_json, write_manifest
from capscope.params import load_params

ROOT = Path(__file__).parents[2]
PATH = Path(os.environ.get("CAPSCOPE_GOLDEN", ROOT / "../shared/golden")) / "difnet/data_case.npz"
DTYPE = "features.grid.dtype=float32"


@pytest.fixture(scope="module")
def arrays() -> dict[str, npt.NDArray[np.generic]]:
    if not PATH.exists():
        pytest.skip(f"fixture {PATH} is not here (CAPSCOPE_GOLDEN names another folder)")
    with np.load(PATH) as found:
        return {name: found[name] for name in found.files}


@pytest.fixture(scope="module")
def store(
    arrays: dict[str, npt.NDArray[np.generic]], tmp_path_factory: pytest.TempPathFactory
) -> FeatureStore:
    """Write the published files of all images, and import them."""
    folder = tmp_path_factory.mktemp("difnet")
    ids = [int(name.partition("/")[2]) for name in arrays if name.startswith("feat/")]
    images = [Image(n, f"COCO_val2014_{n:012d}.jpg", "test", ("a",), (("a",),)) for n in ids]
    write_json(
        folder / "data" / "dataset.json", karpathy_json(Dataset("toy", folder, tuple(images)))
    )
    write_manifest(folder / "data", "data", params={})
    (folder / "segmentations" / "val2014").mkdir(parents=True)
    with h5py.File(folder / "grids.hdf5", "w") as file:
        for number in ids:
            file[f"{number}_features"] = arrays[f"feat/{number}"]
            path = folder / "segmentations" / "val2014" / f"{number}.npy"
            np.save(path, arrays[f"seg/{number}"])
    import_features(
        [("grid_hdf5", folder / "grids.hdf5"), ("segments_npy", folder / "segmentations")],
        folder / "data",
        load_params([ROOT / "params.yaml"], [DTYPE]),
        folder / "store",
        parity=True,
    )
    return FeatureStore.open(folder / "store")


def test_cells_are_filled_up_and_cut_as_the_loader_does(
    arrays: dict[str, npt.NDArray[np.generic]], store: FeatureStore
) -> None:
    ids = np.asarray(arrays["test_batch/image_ids"], np.int64)
    found = store.read(ids)
    expected = torch.from_numpy(np.asarray(arrays["test_batch/detections"], np.float32))
    torch.testing.assert_close(found.cells, expected, rtol=0, atol=0)


def test_segments_are_those_of_the_loader_cell_by_cell(
    arrays: dict[str, npt.NDArray[np.generic]], store: FeatureStore
) -> None:
    ids = np.asarray(arrays["test_batch/image_ids"], np.int64)
    segments = store.read(ids).segments
    assert segments is not None
    pixels = torch.from_numpy(np.asarray(arrays["test_batch/pixels"], np.float32))
    torch.testing.assert_close(segments, pixels.flatten(2).transpose(1, 2), rtol=0, atol=0)


def test_every_image_is_filled_up_or_cut_alike(
    arrays: dict[str, npt.NDArray[np.generic]], store: FeatureStore
) -> None:
    for image_id in store.ids.tolist():
        own = np.asarray(arrays[f"feat/{image_id}"])
        cells = store.read([image_id]).cells[0].numpy()
        shared = min(len(own), len(cells))
        np.testing.assert_array_equal(cells[:shared], own[:shared])
        assert not cells[shared:].any()


@pytest.mark.parametrize("batch", ["xe_batch", "dict_batch"])
def test_batches_hold_the_features_of_the_images_of_their_examples(
    batch: str, arrays: dict[str, npt.NDArray[np.generic]], store: FeatureStore
) -> None:
    path = PATH.with_suffix(".json")
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    found = json.loads(path.read_text("utf-8"))
    examples = [int(Path(name).stem.rpartition("_")[2]) for name, *_ in found["train_examples"]]
    ids = examples if batch == "xe_batch" else list(dict.fromkeys(examples))
    expected = {key: arrays[f"{batch}/{key}"] for key in ("detections", "pixels")}
    ids = ids[: len(expected["pixels"])]
    read = store.read(ids)
    assert read.segments is not None
    np.testing.assert_array_equal(read.cells[: len(ids)], expected["detections"][: len(ids)])
    pixels = expected["pixels"].reshape(len(ids), -1, read.cells.shape[1]).transpose(0, 2, 1)
    np.testing.assert_array_equal(read.segments, pixels)
