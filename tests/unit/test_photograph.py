"""One command from a photograph to an explained caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageSequence
from toy_run import write_run

from capscope.cli import capscope
from capscope.data.vocabulary import build_vocabulary
from capscope.decoding.hypothesis import Hypothesis
from capscope.errors import CapscopeError
from capscope.explain import photograph as photograph_module
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
    said, explained = photographer.caption(photograph), photographer.explain(photograph, ["lrp"])
    assert said.words == explained.captioned.words
    assert invoke("caption", photograph, "--run", run) == f"{photograph}: {said.caption}\n"
    assert said.pixels.shape == (40, 60, 3)


def test_preceding_words_are_the_relevance_of_the_inputs_after_the_start(
    run: Path, photograph: Path
) -> None:
    from capscope.explain.lrp import LRP

    photographer = Photographer(run, {})
    explained = photographer.explain(photograph, ["lrp"])
    subject, (found,) = photographer.subject, explained.found
    ids = [subject.vocabulary.words.index(word) for word in explained.captioned.words]
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
    assert page.count("data-portrait=") == 2
    assert "&lt;b&gt;.png" in page
    assert "<b>.png" not in page


def test_one_word_can_be_asked_for(run: Path, photograph: Path) -> None:
    explained = Photographer(run, {}).explain(photograph, ["lrp", "attention"])
    word = explained.captioned.words[0]
    one = explained.only(word.upper())
    assert set(one.captioned.words) == {word}
    count = explained.captioned.words.count(word)
    assert [len(found.maps) for found in one.found] == [count, count]
    assert len(one.captioned.probabilities) == count


def test_a_word_that_is_not_said_or_not_known_is_refused(run: Path, photograph: Path) -> None:
    explained = Photographer(run, {}).explain(photograph, ["attention"])
    silent = next(
        word
        for word in Photographer(run, {}).subject.vocabulary.ids
        if word not in explained.captioned.words
    )
    arguments = ["explain", photograph, "--run", run, "--word"]
    with pytest.raises(CapscopeError, match=f"has no word '{silent}'; it says: "):
        invoke(*arguments, silent)
    with pytest.raises(CapscopeError, match=r"'moom' is not among the 5 words .*: moon"):
        invoke(*arguments, "moom")
    with pytest.raises(CapscopeError, match="'<start>' is not among the 5 words"):
        invoke(*arguments, "<start>")


@pytest.mark.slow
def test_several_explainers_share_one_picture_and_one_page(
    run: Path, photograph: Path, tmp_path: Path
) -> None:
    arguments = ["explain", photograph, "--run", run]
    for name in ("lrp", "attention", "gradcam"):
        arguments += ["--explainer", name]
    invoke(*arguments[:6], "--out", tmp_path / "one.png")
    invoke(*arguments, "--out", tmp_path / "three.png")
    assert Image.open(tmp_path / "three.png").height > Image.open(tmp_path / "one.png").height
    invoke(*arguments, "--out", tmp_path / "three.html")
    page = (tmp_path / "three.html").read_text()
    assert page.count("data-portrait=") == 1
    assert page.count('"levels":') == 3


def test_an_image_without_a_caption_is_named(
    run: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = [Hypothesis((), (-0.1,), True, -0.1)]
    monkeypatch.setattr(photograph_module, "caption_images", lambda *_: silence)
    with pytest.raises(CapscopeError, match=r"the caption of .*photo & more.jpg is empty"):
        Photographer(run, {}).explain(photograph, ["lrp"])


def test_of_several_images_those_without_the_word_are_left_out(
    run: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both").mkdir()
    for name in ("one.png", "two.png"):
        Image.open(photograph).save(tmp_path / "both" / name)
    speak, asked = photograph_module.caption_images, []

    def first_says_nothing(*arguments: object) -> object:
        asked.append(arguments)
        return speak(*arguments) if len(asked) == 2 else [Hypothesis((), (-0.1,), True, -0.1)]

    monkeypatch.setattr(photograph_module, "caption_images", first_says_nothing)
    explain = ["explain", "both", "--run", run, "--out", "page.html"]
    output = invoke(*explain)
    assert "both/two.png: " in output
    assert "both/one.png: " not in output
    assert Path("page.html").exists()
    with pytest.raises(CapscopeError, match=r"the caption of both/two.png is empty"):
        invoke(*explain)


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
        Photographer(run, {}).explain(photograph, ["lrp", "magic"])


def test_two_images_do_not_fit_into_one_picture(run: Path, photograph: Path) -> None:
    with pytest.raises(CapscopeError, match="holds one image, 2 are given"):
        invoke("explain", photograph, photograph, "--run", run, "--out", "one.png")


def test_captions_of_other_decoding_methods_are_printed_line_by_line(
    run: Path, photograph: Path
) -> None:
    groups = ["--set", "method=diverse_beam", "--set", "groups=2", "--set", "penalty=9"]
    lines = invoke("caption", photograph, "--run", run, *groups).splitlines()
    assert len(lines) == 2
    assert lines[0] != lines[1]
    draws = ["--set", "method=sample", "--set", "captions=3", "--set", "max_length=4"]
    drawn = invoke("caption", photograph, "--run", run, *draws)
    assert len(drawn.splitlines()) == 3
    assert invoke("caption", photograph, "--run", run, *draws) == drawn
    with pytest.raises(CapscopeError, match=r"decoding\.groups: 0 is less than"):
        invoke("caption", photograph, "--run", run, "--set", "groups=0")
    with pytest.raises(CapscopeError, match=r"decoding\.goups: unknown key; did you mean 'groups'"):
        invoke("caption", photograph, "--run", run, "--set", "goups=2")


@pytest.mark.parametrize("explainer", ["attention", "gradcam", "lrp"])
def test_an_explanation_can_be_an_animation_with_a_frame_a_word(
    explainer: str, run: Path, photograph: Path, tmp_path: Path
) -> None:
    out = tmp_path / "photo.gif"
    said = invoke("explain", photograph, "--run", run, "--explainer", explainer, "--out", out)
    found = Photographer(run, {}).explain(photograph, [explainer]).found[0]
    if explainer == "lrp":
        assert found.cells is None
    else:
        assert found.cells.shape == (len(found.maps), 4, 4)
    shown = 0
    with Image.open(out) as film:  # frames that are the same are one that stands longer
        for frame in ImageSequence.Iterator(film):
            shown += frame.info["duration"]
    assert shown == 800 * len(found.maps)
    assert str(out) in said
    more = ("--explainer", "lrp", "--explainer", "attention")
    with pytest.raises(CapscopeError, match="shows one explainer, 2 are given"):
        invoke("explain", photograph, "--run", run, *more, "--out", out)
    with pytest.raises(CapscopeError, match="holds one image, 2 are given"):
        invoke("explain", photograph, photograph, "--run", run, "--out", out)
