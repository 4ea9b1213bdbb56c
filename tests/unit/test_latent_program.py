"""The published program's command line on a small run over regions: files, figures, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from toy_run import write_run

from capscope.benchmarks.latent_files import LatentFiles
from capscope.cli.latent import command
from capscope.data.annotations import read_karpathy
from capscope.data.scenes.lexicon import CLASSES
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.errors import CapscopeError
from capscope.features.regions import Regions
from capscope.features.store import FeatureStore, create_region_store
from capscope.files import write_manifest

SCENES = {"seed": 3, "size": 32, "train": 1, "val": 1, "test": 4, "shift": 0, "bias": 0.8}
MOST, DIM = 8, 5
ROOT = Path(__file__).resolve().parents[2]
NAMES = list(CLASSES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data, regions with classes, an untrained run, and captions that name two classes."""
    root = tmp_path_factory.mktemp("latent_program")
    folders = {name: root / name for name in ("data", "features", "run", "out")}
    write_scenes(folders["data"], SCENES)
    dataset = read_karpathy(folders["data"] / "dataset.json", folders["data"], "scenes")
    generator = torch.Generator().manual_seed(0)
    regions = []
    for _ in dataset.images:
        corners = torch.rand(MOST, 2, 2, generator=generator).sort(1).values
        cells = torch.rand(MOST, DIM, generator=generator)
        classes = torch.tensor([0, 1, 2, 0, 1, 3, 4, 5])
        scores = torch.linspace(0.9, 0.2, MOST)
        regions.append(Regions(cells, corners.flatten(1), (32, 32), classes, scores))
    folders["features"].mkdir()
    with create_region_store(
        folders["features"],
        [image.id for image in dataset.images],
        regions=MOST,
        dim=DIM,
        dtype="float32",
        attributes={"network": "toy", "class_names": NAMES},
        details=("class_ids", "scores"),
    ) as writer:
        writer.append(regions)
    write_manifest(folders["features"], "features", params={})
    texts = [t for image in dataset.images for t in image.tokens]
    vocabulary = build_vocabulary([*texts, [NAMES[0], NAMES[1], NAMES[9]]], 1)
    torch.manual_seed(1)
    write_run(folders["run"], None, vocabulary, FeatureStore.open(folders["features"]).attributes)
    captions = {
        Path(image.file).name: f"a {NAMES[0]} and a {NAMES[1]} with {NAMES[9]}"
        for image in dataset.split("test")
    }
    LatentFiles(folders["out"], "toy", "test").write_captions(captions)
    return folders


def latent(folders: dict[str, Path], *arguments: str, out: Path | None = None) -> Result:
    where = [f"--{name}={folders[name]}" for name in ("data", "features", "run")]
    place = f"--out={out or folders['out']}"
    params = f"--params={ROOT / 'params.yaml'}"
    given = ["-d", "toy", params, *where, place, *arguments]
    return CliRunner().invoke(command, given)


def succeed(folders: dict[str, Path], *arguments: str, out: Path | None = None) -> str:
    found = latent(folders, *arguments, out=out)
    if found.exception is not None:
        raise found.exception
    return found.output


@pytest.mark.parametrize("method", ["lrp", "lime1", "lime2", "lime3", "lime_5obj"])
def test_explanations_and_both_evaluations(folders: dict[str, Path], method: str) -> None:
    model = ("--expl-model", method)
    succeed(folders, "--mode", "expl", *model)
    said = succeed(folders, "--mode", "eval", *model, "--eval-type", "correlation")
    assert "nb_common        8" in said
    assert "nb_missing       4" in said  # the class that was not detected
    orders = LatentFiles(folders["out"], "toy", "test").read_orders(method)
    for by_object in orders.values():
        assert [list(entry) for entry in by_object] == [[NAMES[0]], [NAMES[1]]]
        for entry in by_object:
            (order,) = entry.values()
            assert sorted(order) == list(range(MOST))
    for kind in ("vf_3_min", "ob_2_max", "vf_2_15"):
        said = succeed(
            folders, "--mode", "eval", *model, "--eval-type", "ablation", "--abl-type", kind
        )
        assert "nb_words         8" in said
        file = folders["out"] / "figures" / f"toy_test_{method}_ablation_{kind}.json"
        assert json.loads(file.read_text())["nb_ignored"] == 0


def test_random_is_a_baseline_with_the_spelling_of_the_original(folders: dict[str, Path]) -> None:
    succeed(folders, "--mode", "expl", "--expl_model", "lrp")
    succeed(folders, "--mode", "eval", "--expl_model", "lrp", "--eval_type", "correlation")
    first, again = (
        succeed(folders, "--mode=eval", "--expl_model=random", "--eval_type=correlation")
        for _ in range(2)
    )
    assert first == again
    succeed(
        folders,
        *("--mode=eval", "--expl_model=random", "--eval_type=ablation", "--abl_type=ob_2_min"),
    )


def test_published_orders_are_the_right_ones_turned_round(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for out, extra in (("right", []), ("published", ["--parity"])):
        there = tmp_path / out
        captions = LatentFiles(folders["out"], "toy", "test").captions()
        LatentFiles(there, "toy", "test").write_captions(captions)
        succeed(folders, "--mode=expl", "--expl-model=lime1", *extra, out=there)
        succeed(
            folders,
            *("--mode=eval", "--expl-model=lime1", "--eval-type=correlation", *extra),
            out=there,
        )
    right, published = (
        LatentFiles(tmp_path / out, "toy", "test").read_orders("lime1")
        for out in ("right", "published")
    )
    for image, entries in right.items():
        for entry, other in zip(entries, published[image], strict=True):
            ((name, order),) = entry.items()
            assert other == {name: order[::-1]}


def test_captions_are_made_and_read_under_both_keys(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    succeed(folders, "--mode=expl", "--expl-model=lrp", "--images=2", out=tmp_path)
    path = tmp_path / "lrp_probs" / "toy" / "captions.yaml"
    loaded = yaml.safe_load(path.read_text())
    assert len(loaded) == 2
    assert all(key.endswith(".hdf5") for key in loaded)
    files = LatentFiles(tmp_path, "toy", "test")
    path.write_text(yaml.safe_dump({"one.jpg": ["a dog"], "two.jpg.hdf5": ["a cat"]}))
    assert files.captions() == {"one.jpg": "a dog", "two.jpg": "a cat"}
    for broken in ("[1, 2]", "a: {b: [", "a: 3", "!!python/object/apply:os.getcwd []"):
        path.write_text(broken)
        with pytest.raises(CapscopeError, match=r"captions\.yaml is no mapping"):
            files.captions()


def test_what_cannot_be_asked_is_refused_with_the_next_step(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for arguments, message in (
        (("--mode=expl", "--expl-model=lime"), "write lime_5obj or lime_8obj"),
        (("--mode=expl", "--expl-model=lime9"), "unknown variant 'lime9'"),
        (("--mode=expl", "--expl-model=random"), "random explains nothing"),
        (("--mode=expl", "--expl-model=lime4"), "13 of an image's 8 visual features"),
        (("--mode=eval", "--expl-model=lrp"), "needs --eval-type"),
        (("--mode=eval", "--expl-model=lrp", "--eval-type=ablation"), "--abl-type goes with"),
        (
            ("--mode=eval", "--expl-model=lrp", "--eval-type=ablation", "--abl-type=vf_min"),
            "write vf_X_M",
        ),
        (
            ("--mode=eval", "--expl-model=lime1", "--eval-type=ablation", "--abl-type=vf_1_min"),
            "run --mode expl",
        ),
        (("--mode=expl", "--expl-model=lrp", "--test-split=val2"), "val2"),
    ):
        with pytest.raises(CapscopeError, match=message):
            succeed(folders, *arguments, out=tmp_path)


def test_more_features_or_objects_than_images_have(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    captions = LatentFiles(folders["out"], "toy", "test").captions()
    files = LatentFiles(tmp_path, "toy", "test")
    files.write_captions(captions)
    for method in ("lrp", "lime_8obj"):
        model = f"--expl-model={method}"
        succeed(folders, "--mode=expl", model, out=tmp_path)
        said = succeed(folders, "--mode=eval", model, "--eval-type=correlation", out=tmp_path)
        left_out = 4 if method == "lime_8obj" else 0  # images have 6 classes
        assert f"not explained    {left_out}" in said
    for kind in ("vf_37_min", "ob_7_min"):
        with pytest.raises(CapscopeError, match="enough features or objects"):
            succeed(
                folders,
                *("--mode=eval", "--expl-model=lrp", "--eval-type=ablation", f"--abl-type={kind}"),
                out=tmp_path,
            )


def test_class_files_without_an_image_and_captions_without_nouns_are_counted(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    images = list(LatentFiles(folders["out"], "toy", "test").captions())
    files = LatentFiles(tmp_path, "toy", "test")
    files.write_captions(dict.fromkeys(images, "on and of"))
    path = tmp_path / "lime_probs" / "toy" / "object_classes_scores_test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({image: [0, 1] for image in images[1:]}))
    succeed(folders, "--mode=expl", "--expl-model=lrp", out=tmp_path)
    said = succeed(
        folders, "--mode=eval", "--expl-model=lrp", "--eval-type=correlation", out=tmp_path
    )
    for line in ("without classes  1", "without objects  3", "nb_common        0"):
        assert line in said
    with pytest.raises(CapscopeError, match="no image has an explained object"):
        succeed(
            folders,
            *("--mode=eval", "--expl-model=lrp", "--eval-type=ablation", "--abl-type=vf_1_min"),
            out=tmp_path,
        )
    path.write_text(json.dumps({"x.jpg": "dog"}))
    with pytest.raises(CapscopeError, match="no mapping of images to lists of class ids"):
        succeed(folders, "--mode=eval", "--expl-model=lrp", "--eval-type=correlation", out=tmp_path)
