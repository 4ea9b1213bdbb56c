"""One command from a photograph to an explained caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from toy_run import write_run

from capscope.cli import capscope
from capscope.data.vocabulary import build_vocabulary
from capscope.errors import CapscopeError
from capscope.explain.photograph import Photographer, find_images
from capscope.features.grid import GridExtractor
from capscope.features.small import SmallNetwork

SIZE = 32


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    config = {"channels": [4, 6, 8]}
    extractor = GridExtractor("small", SmallNetwork(**config), SIZE, layer="last", config=config)
    vocabulary = build_vocabulary([["a", "cat", "sees", "the", "moon"]], 1)
    attributes = {"network": "small", "dim": extractor.dim}
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, extractor, vocabulary, attributes)
    return folder


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "a photo & more.jpg"
    Image.fromarray(pixels).save(path)
    return path


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(capscope, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_caption_and_explain_say_the_same(run: Path, photograph: Path) -> None:
    photographer = Photographer(run, {})
    said, explained = photographer.caption(photograph), photographer.explain(photograph, "lrp")
    assert said.words == explained.captioned.words
    assert invoke("caption", photograph, "--run", run) == f"{photograph}: {said.caption}\n"
    assert said.pixels.shape == (40, 60, 3)


def test_preceding_words_are_the_relevance_of_the_inputs_after_the_start(
    run: Path, photograph: Path
) -> None:
    from capscope.explain.lrp import LRP

    photographer = Photographer(run, {})
    found = photographer.explain(photograph, "lrp")
    subject = photographer.subject
    ids = [subject.vocabulary.words.index(word) for word in found.captioned.words]
    images = subject.network.preprocess(Image.open(photograph)).unsqueeze(0)
    expected = LRP(subject).explain(
        images,
        subject.look(images),
        subject.inputs(torch.tensor([ids])),
        torch.tensor([len(ids)]),
    )
    assert expected.words is not None
    assert expected.pixels is not None
    assert found.before is not None
    last = len(ids) - 1
    np.testing.assert_allclose(found.before[last, :last], expected.words[0, last, 1:], rtol=1e-5)
    np.testing.assert_allclose(found.maps, expected.pixels[0].double(), rtol=1e-5)


def test_explain_draws_a_picture_beside_the_user(
    run: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = invoke("explain", photograph, "--run", run)
    file = tmp_path / "a photo & more.explained.png"
    assert "a photo & more.explained.png" in output
    assert Image.open(file).width > 300


def test_explain_makes_one_page_of_a_folder_and_escapes_names(
    run: Path, photograph: Path, tmp_path: Path
) -> None:
    Image.open(photograph).save(tmp_path / "<b>.png")
    invoke(
        "explain", tmp_path, "--run", run, "--explainer", "attention", "--out", tmp_path / "x.html"
    )
    page = (tmp_path / "x.html").read_text()
    assert page.count("<article") == 2
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page


def test_one_word_can_be_asked_for(run: Path, photograph: Path) -> None:
    found = Photographer(run, {}).explain(photograph, "lrp")
    word = found.captioned.words[0]
    one = found.only(word.upper())
    assert set(one.captioned.words) == {word}
    assert len(one.maps) == len(one.captioned.probabilities) == found.captioned.words.count(word)
    with pytest.raises(CapscopeError, match="has no word 'zebra'; it says: "):
        found.only("zebra")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "image missing.jpg does not exist"),
        (["."], "has no images"),
    ],
)
def test_images_that_are_not_there_are_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CapscopeError, match=message):
        find_images([Path(argument) for argument in arguments])


def test_an_unknown_explainer_lists_those_there_are(run: Path, photograph: Path) -> None:
    with pytest.raises(CapscopeError, match="unknown explainer 'magic'; there are: lrp"):
        Photographer(run, {}).explain(photograph, "magic")


def test_two_images_do_not_fit_into_one_picture(run: Path, photograph: Path) -> None:
    with pytest.raises(CapscopeError, match="holds one image, 2 are given"):
        invoke("explain", photograph, photograph, "--run", run, "--out", "one.png")
