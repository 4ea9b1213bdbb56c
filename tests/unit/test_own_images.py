"""Every captioner captions and explains one's own images, over a grid or a detector's regions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from small_features import small_features
from toy_subjects import CONFIGS, sizes

from capscope.cli import capscope
from capscope.data.vocabulary import build_vocabulary
from capscope.features.store import FeatureStore
from capscope.importers.checkpoints import write_imported
from capscope.models import build, configure

VOCABULARY = build_vocabulary([["a", "cat", "sees", "the", "moon"]], 1)
PAIRS = [(name, kind) for name in CONFIGS for kind in ("grid", "regions")]
PAIRS.remove(("difnet", "regions"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own")
    small_features(made)
    return made


def run_of(name: str, store_dir: Path, out: Path, seed: int) -> Path:
    """Write an untrained run on the features of a store, whose network comes along."""
    torch.manual_seed(seed)
    store = FeatureStore.open(store_dir)
    own = {**sizes(name), "vocabulary_size": len(VOCABULARY), "feature_size": store.dim}
    config = configure(name, store.kind, own, store.grid[0] * store.grid[1], store.segments)
    write_imported(
        out,
        build(name, **config),
        name=name,
        system=name,
        config=config,
        vocabulary=VOCABULARY,
        features=store.attributes,
        decoding={"method": "beam", "beam": 3, "max_length": 5, "length_normalisation": 1},
        checkpoint=store_dir / "manifest.json",
        inputs={},
        store_dir=store_dir,
    )
    return out


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(capscope, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_captioner_captions_a_folder_and_explains_on_a_page(
    name: str, kind: str, folder: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        Image.open(folder / "images" / f"{number}.png").resize((50, 40)).save(
            photos / f"{number}.jpg"
        )
    for seed in range(9):
        run = run_of(name, folder / kind, tmp_path / "run", seed)
        lines = invoke("caption", photos, "--run", run).splitlines()
        if not any(line.endswith(": ") for line in lines):
            break  # untrained captioners may say nothing, and then there is nothing to explain
    assert [line.partition(":")[0] for line in lines] == [str(photos / f"{i}.jpg") for i in (0, 1)]
    page = tmp_path / "page.html"
    methods = ["--explainer", "lrp"]
    if name in ("base", "difnet"):
        methods += ["--explainer", "alpha_beta_lrp"]
    invoke("explain", photos, "--run", run, *methods, "--out", page)
    text = page.read_text()
    for line in lines:
        path, _, caption = line.partition(": ")
        assert Path(path).name in text
        assert set(caption.split()) <= set(re.findall(r"\w+", text))
