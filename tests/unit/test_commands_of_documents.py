"""Commands that documents show: those of the front page run, all others are understood."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from toy_run import write_run

from capscope.cli import capscope
from capscope.cli.options import DEFAULT_RUN
from capscope.data.vocabulary import build_vocabulary
from capscope.explain.photograph import Photographer
from capscope.features.grid import GridExtractor
from capscope.features.small import SmallNetwork
from capscope.params import load_params

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUN_HERE = ["README.md", "docs/how-to/own-images.md"]
"""Documents whose commands run on a small run, where the demo would have left its own."""


def commands(document: Path) -> list[list[str]]:
    """Return the words of each line of shell code, without variables and comments."""
    text = document.read_text("utf-8")
    code = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).replace("\\\n", " ")
    return [words for line in code.splitlines() if (words := shlex.split(line, comments=True))]


def of_capscope(document: Path) -> list[list[str]]:
    return [words[1:] for words in commands(document) if words[0] == "capscope"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the front page names: a run of the demo, photographs, captions."""
    folder = tmp_path_factory.mktemp("workplace")
    rng = np.random.default_rng(1)
    (folder / "holiday").mkdir()
    for name in ("photo.jpg", "holiday/one.jpg", "holiday/two.png"):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / name)
    annotations = [{"image_id": 1, "caption": "A dog runs."}]
    (folder / "captions.json").write_text(json.dumps({"annotations": annotations}))
    (folder / "results.json").write_text(json.dumps([{"image_id": 1, "caption": "a dog runs"}]))
    config = {"channels": [4, 6, 8]}
    extractor = GridExtractor("small", SmallNetwork(**config), 32, layer="last", config=config)
    attributes = {"network": "small", "dim": extractor.dim}
    for run in (DEFAULT_RUN, "results/coco_sample/runs/gridtd/xe/seed1"):
        path = folder / run
        path.parent.mkdir(parents=True)
        torch.manual_seed(0)
        write_run(path, extractor, build_vocabulary([["dog"]], 1), attributes)
        for photo in ("photo.jpg", "holiday/one.jpg", "holiday/two.png"):
            assert "dog" in Photographer(path, {}).caption(folder / photo).words
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_HERE)
def test_commands_run_as_they_are_shown(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    found = of_capscope(ROOT / name)
    assert found
    for arguments in found:
        quick = ["--no-meteor", "--tokenizer", "python"] if arguments[0] == "evaluate" else []
        done = CliRunner().invoke(capscope, [*arguments, *quick])
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        if "--out" in arguments:
            assert Path(arguments[arguments.index("--out") + 1]).stat().st_size > 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_have_the_options_that_documents_give_them(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in of_capscope(document):
        abridged = "..." in words
        arguments = [word for word in words if word not in ("...", "[...]")]
        found: click.Command = capscope
        while isinstance(found, click.Group) and arguments and not arguments[0].startswith("-"):
            inner = found.get_command(click.Context(found), arguments[0])
            assert inner is not None, words
            found, arguments = inner, arguments[1:]
        if "--help" in arguments:
            continue
        try:
            found.make_context(" ".join(words), arguments)
        except click.MissingParameter:
            assert abridged, words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_overlays_that_commands_name_are_there_and_valid(document: Path) -> None:
    written_there = re.findall(r"`config/(\w+)\.yaml`", document.read_text("utf-8"))
    for words in commands(document):
        for word in words:
            overlay = re.fullmatch(r"config/(\w+)\.yaml", word)
            if overlay and overlay[1] not in written_there:
                load_params([ROOT / "params.yaml", ROOT / word])


@pytest.mark.slow  # METEOR starts Java
def test_the_python_example_of_the_metrics_runs() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    *statements, last = example.strip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join(statements), names)
    value, per_image = eval(last, names)
    assert per_image.tolist() == [value]
