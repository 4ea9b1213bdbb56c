"""The published program's command line on a small run over regions: files, figures, errors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from toy_run import write_run

from capscope.benchmarks.latent_evaluate import LatentEvaluation
from capscope.benchmarks.latent_files import LatentFiles
from capscope.cli.latent import command
from capscope.data.annotations import read_karpathy
from capscope.data.scenes.lexicon import CLASSES
from capscope.data.scenes.write import write_scenes
from capscope.data.vocabulary import build_vocabulary
from capscope.errors import CapscopeError
from capscope.explain.latent.objects import Match
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


def captions_of(folders: dict[str, Path]) -> dict[str, str]:
    return LatentFiles(folders["out"], "toy", "test").captions()


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
        (("--mode=expl",), "--mode expl needs --expl-model"),
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


def test_more_objects_than_any_image_has_are_an_error_that_says_so(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    LatentFiles(tmp_path, "toy", "test").write_captions(captions_of(folders))
    with pytest.raises(CapscopeError, match="fewer different objects than the variant perturbs"):
        succeed(folders, "--mode=expl", "--expl-model=lime_8obj", out=tmp_path)


@pytest.mark.parametrize("kind", ["vf_37_min", "ob_7_min"])
def test_more_features_or_objects_ablated_than_any_image_has(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    LatentFiles(tmp_path, "toy", "test").write_captions(captions_of(folders))
    succeed(folders, "--mode=expl", "--expl-model=lrp", out=tmp_path)
    evaluate = ("--mode=eval", "--expl-model=lrp")
    succeed(folders, *evaluate, "--eval-type=correlation", out=tmp_path)
    with pytest.raises(CapscopeError, match="at most 8 features"):
        succeed(folders, *evaluate, "--eval-type=ablation", f"--abl-type={kind}", out=tmp_path)


def test_captions_without_nouns_leave_nothing_to_evaluate(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    files = LatentFiles(tmp_path, "toy", "test")
    captions = captions_of(folders)
    files.write_captions(dict.fromkeys(captions, "on and of"))
    succeed(folders, "--mode=expl", "--expl-model=lrp", out=tmp_path)
    evaluate = ("--mode=eval", "--expl-model=lrp")
    with pytest.raises(CapscopeError, match="of the others' captions 4 name none"):
        succeed(folders, *evaluate, "--eval-type=correlation", out=tmp_path)
    with pytest.raises(CapscopeError, match="no image has an explained object"):
        succeed(
            folders,
            *("--mode=eval", "--expl-model=random", "--eval-type=ablation", "--abl-type=vf_1_min"),
            out=tmp_path,
        )
    first = next(iter(captions))
    files.write_captions({**dict.fromkeys(captions, "on and of"), first: f"a {NAMES[0]}"})
    files.probabilities("lrp", first).unlink()
    succeed(folders, "--mode=expl", "--expl-model=lrp", out=tmp_path)
    said = succeed(folders, *evaluate, "--eval-type=correlation", out=tmp_path)
    assert "without objects  3" in said
    assert "nb_common        1" in said


def test_class_files_are_checked_against_images_and_names(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    captions = captions_of(folders)
    LatentFiles(tmp_path, "toy", "test").write_captions(captions)
    path = tmp_path / "lime_probs" / "toy" / "object_classes_scores_test.json"
    path.parent.mkdir(parents=True)
    succeed(folders, "--mode=expl", "--expl-model=lrp", out=tmp_path)
    evaluate = ("--mode=eval", "--expl-model=lrp", "--eval-type=correlation")
    path.write_text(json.dumps({image: [0, 1] for image in list(captions)[1:]}))
    assert "without classes  1" in succeed(folders, *evaluate, out=tmp_path)
    for content, message in (
        ({"x.jpg": "dog"}, "no mapping of images to lists of class ids"),
        ({"x.jpg": [0]}, "has no image of the split test"),
        ({image: [1600] for image in captions}, "names class 1600, but there are"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(CapscopeError, match=message):
            succeed(folders, *evaluate, out=tmp_path)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"{name},other" for name in ["thing", *NAMES]))
    path.write_text(json.dumps({image: [1, 2] for image in captions}))
    said = succeed(folders, *evaluate, f"--class-names={names}", out=tmp_path)
    assert "nb_common        8" in said


def test_nouns_of_a_table_of_tags_are_objects_too(folders: dict[str, Path], tmp_path: Path) -> None:
    captions = dict.fromkeys(captions_of(folders), f"a {NAMES[0]} {NAMES[1]} and a {NAMES[1]}")
    LatentFiles(tmp_path, "toy", "test").write_captions(captions)
    succeed(folders, "--mode=expl", "--expl-model=lrp", out=tmp_path)
    evaluate = ("--mode=eval", "--expl-model=lrp", "--eval-type=correlation")
    tags = tmp_path / "tags.json"
    tags.write_text(json.dumps({NAMES[0]: "NN", NAMES[1]: "NN"}))
    # Two nouns in a row are one object, which no class is called.
    assert "nb_common        4" in succeed(folders, *evaluate, f"--tags={tags}", out=tmp_path)
    assert "nb_common        12" in succeed(folders, *evaluate, out=tmp_path)
    tags.write_text("[1]")
    with pytest.raises(CapscopeError, match="no mapping of words to tags"):
        succeed(folders, *evaluate, f"--tags={tags}", out=tmp_path)


@pytest.mark.slow
def test_the_pickles_of_the_program_are_converted_once(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "lime_probs" / "toy"
    folder.mkdir(parents=True)
    classes = {image: [torch.tensor([3, 1, 3])] for image in captions_of(folders)}
    masks = [[0, 3, 5], [1, 2, 7]]
    for name, content in (
        ("object_classes_scores_test", classes),
        ("lime2_perturb_indexes", masks),
    ):
        (folder / name).write_bytes(pickle.dumps(content))
    torch.save(torch.tensor([[0.0, 0.5], [1.0, 2.0]]), folder / "mn_mx_bu_1024.pt")
    said = succeed(folders, "--mode=prepar", out=tmp_path)
    assert said.count("->") == 3
    files = LatentFiles(tmp_path, "toy", "test")
    assert files.classes() == {image: [3, 1, 3] for image in classes}
    assert files.masks("lime2") == masks
    assert json.loads((folder / "bounds.json").read_text()) == [[0.0, 0.5], [1.0, 2.0]]
    assert "->" not in succeed(folders, "--mode=prepar", out=tmp_path)
    (folder / "lime4_perturb_indexes").write_bytes(pickle.dumps({"a": "b"}))
    with pytest.raises(CapscopeError, match="holds str, no lists of numbers"):
        succeed(folders, "--mode=prepar", out=tmp_path)
    (folder / "lime4_perturb_indexes").write_bytes(pickle.dumps(Path("a")))
    with pytest.raises(CapscopeError, match=r"lime4_perturb_indexes was not read: .* can run code"):
        succeed(folders, "--mode=prepar", out=tmp_path)


def test_captions_alone_and_the_images_of_train_that_a_file_names(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    succeed(folders, "--mode=none", "--workers=1", "--embed_dim=512", out=tmp_path)
    path = tmp_path / "lrp_probs" / "toy" / "captions.yaml"
    assert len(yaml.safe_load(path.read_text())) == 4
    published = tmp_path / "lrp_probs" / "toy" / "test" / "captions.yaml"
    published.parent.mkdir()
    path.rename(published)  # where the program writes it
    assert len(LatentFiles(tmp_path, "toy", "test").captions()) == 4
    indexes = tmp_path / "lime_probs" / "toy" / "random_train_indexes.json"
    indexes.parent.mkdir(parents=True)
    indexes.write_text("[0]")
    succeed(folders, "--mode=none", "--test_split=train", out=tmp_path)
    assert len(yaml.safe_load(path.read_text())) == 1
    indexes.write_text("[7]")
    with pytest.raises(CapscopeError, match="list of places of the 1 images of train"):
        succeed(folders, "--mode=none", "--test_split=train", out=tmp_path)


def test_a_noun_that_is_said_twice_has_the_relevance_of_each_place() -> None:
    words = ["a", "dog", "and", "hot", "dog", "or", "dog"]
    common = [Match(name, 0, 0) for name in ("dog", "hot dog", "dog")]
    right, published = (
        list(LatentEvaluation(*([None] * 5), parity)._places(words, common))  # type: ignore[arg-type]
        for parity in (False, True)
    )
    assert right == [[1], [3, 4], [6]]
    assert published == [[1], [3, 1], [1]]
