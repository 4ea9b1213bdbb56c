"""The examples of the how-to guides work: what they add is trained, explained and measured."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_data import tiny_folders, tiny_params

import capscope.benchmarks
import capscope.data
import capscope.explain
import capscope.models
from capscope import params as parameters
from capscope.benchmarks.run import run_benchmarks
from capscope.data import prepare, sources
from capscope.data.annotations import open_dataset
from capscope.decoding.captions import decode_run
from capscope.errors import CapscopeError
from capscope.explain.split import explain_split, open_subject
from capscope.explain.store import RelevanceStore
from capscope.features.store import FeatureStore
from capscope.params import Params, merge
from capscope.relevance import operations as ops
from capscope.relevance.backward import word_relevance
from capscope.relevance.rules import GRADIENT, LRP
from capscope.report.explanations import SHOWN, Shown
from capscope.training.run import train_run

GUIDES = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(guide: str, language: str) -> list[str]:
    text = (GUIDES / f"{guide}.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


class Newcomer:
    """Follows the guides: new files in a folder beside the package, lines in its tables."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.schema = copy.deepcopy(parameters.schema())
        monkeypatch.setattr(parameters, "schema", lambda: self.schema)

    def add_file(self, guide: str, package: Any) -> None:
        """Write the first Python block to the file that it names, where the package finds it."""
        text = blocks(guide, "python")[0]
        name = re.match(r"# src/capscope/(\S+)\n", text).group(1)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.monkeypatch.setattr(package, "__path__", [*package.__path__, str(path.parent)])

    def add_line(self, guide: str, table: dict[str, Any], number: int = 1, **names: Any) -> str:
        """Add the line of a Python block to a table; return its key."""
        key, value = blocks(guide, "python")[number].strip().rstrip(",").split(": ", 1)
        self.monkeypatch.setitem(table, ast.literal_eval(key), eval(value, names))
        return ast.literal_eval(key)

    def add_name(self, name: str, *path: str) -> None:
        """Add a name to a list of the schema."""
        place = self.schema["properties"]
        for part in path:
            place = place[part]
        place["enum"].append(name)


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Newcomer:
    return Newcomer(tmp_path / "new", monkeypatch)


def overlay(guide: str) -> Params:
    (text,) = blocks(guide, "yaml")
    return parameters.yaml.safe_load(text)


def explained_run(folder: Path, params: Params, system: str, explainers: list[str]) -> Path:
    """Train, caption and explain; return the run."""
    folders = tiny_folders(folder, params)
    run = folder / "run"
    places = (folders["data"], folders["vocabulary"], folders["features"])
    train_run(run, *places, params, system=system, stage="xe", seed=1)
    decoded = run / "decoded" / "test.json"
    decode_run(run, folders["data"], folders["features"], params, split="test", out=decoded)
    where = (folders["data"], folders["features"], run / "relevance")
    explain_split(run, *where, params, split="test", explainers=explainers)
    return run


def test_the_captioner_of_the_guide_is_trained_and_explained(
    newcomer: Newcomer, tmp_path: Path
) -> None:
    guide = "add-a-captioner"
    newcomer.add_file(guide, capscope.models)
    name = newcomer.add_line(guide, capscope.models.CAPTIONERS)
    system = newcomer.schema["properties"]["systems"]["additionalProperties"]["properties"]
    system["captioner"]["enum"].append(name)
    params = merge(tiny_params(), overlay(guide))
    parameters.validate(params)
    run = explained_run(tmp_path, params, "bigram", ["lrp", "attention", "gradcam"])
    _, subject = open_subject(run)
    features = FeatureStore.open(tmp_path / "features").read([104, 109])
    word_ids = torch.randint(4, len(subject.vocabulary), (2, 5))
    captioner = subject.captioner
    plain = captioner.readout(captioner.hidden(features, word_ids).values)
    with ops.relevance_mode(LRP):
        assert torch.equal(captioner.readout(captioner.hidden(features, word_ids).values), plain)
    memory = captioner.encode(features)
    state = captioner.start(memory)
    for position in range(5):
        step = captioner.step(word_ids[:, position : position + 1], state, memory)
        torch.testing.assert_close(step.log_probs[:, 0], plain[:, position].log_softmax(-1))
        state = step.state
    cells = features.cells.requires_grad_()
    hidden = captioner.hidden(features._replace(cells=cells), word_ids[:, :-1])
    logits = captioner.readout(hidden.values, word_ids[:, 1:])
    (expected,) = torch.autograd.grad(logits[:, -1].sum(), cells)
    found = word_relevance(captioner, features._replace(cells=cells.detach()), word_ids, GRADIENT)
    torch.testing.assert_close(found.features[:, -1], expected)


def test_the_explainer_of_the_guide_explains_and_the_benchmark_measures(
    newcomer: Newcomer, tmp_path: Path
) -> None:
    newcomer.add_file("add-an-explainer", capscope.explain)
    newcomer.add_file("add-a-benchmark", capscope.benchmarks)
    explainer = newcomer.add_line("add-an-explainer", capscope.explain.EXPLAINERS)
    benchmark = newcomer.add_line(
        "add-a-benchmark",
        capscope.benchmarks.BENCHMARKS,
        Benchmark=capscope.benchmarks.Benchmark,
    )
    assert newcomer.add_line("add-a-benchmark", SHOWN, 2, Shown=Shown) == benchmark
    newcomer.add_name(explainer, "explanations", "properties", "explainers", "items")
    newcomer.add_name(benchmark, "benchmarks", "properties", "measures", "items")
    params = merge(tiny_params(), overlay("add-an-explainer"))
    params = merge(params, overlay("add-a-benchmark"))
    params["dataset"]["evaluate"] = ["test"]
    parameters.validate(params)
    run = explained_run(tmp_path, params, "gridtd", params["explanations"]["explainers"])
    _occlusion_is_what_the_word_loses(tmp_path, run)
    folders = (tmp_path / "data", tmp_path / "features", run / "benchmarks")
    run_benchmarks([benchmark], run, *folders, params)
    table = (run / "benchmarks" / f"{benchmark}.csv").read_text()
    assert "occlusion,grid,all,test,gini," in table
    _gini_is_the_mean_difference_of_pairs()


def _occlusion_is_what_the_word_loses(folder: Path, run: Path) -> None:
    """Search with single decoding steps, one image, one feature at a time."""
    _, subject = open_subject(run)
    store = RelevanceStore(run / "relevance" / "occlusion" / "test")
    stored = store[0]
    features = FeatureStore.open(folder / "features").read([stored.image_id])

    def spoken(cells: torch.Tensor) -> list[float]:
        memory = subject.captioner.encode(features._replace(cells=cells))
        state, word, found = subject.captioner.start(memory), subject.vocabulary.start, []
        for next_word in stored.word_ids:
            step = subject.captioner.step(torch.tensor([[word]]), state, memory)
            state, word = step.state, next_word
            found.append(float(step.log_probs[0, 0, next_word]))
        return found

    with torch.no_grad():
        whole = torch.tensor(spoken(features.cells))
        for number in range(features.cells.shape[1]):
            cells = features.cells.clone()
            cells[:, number] = 0
            expected = whole - torch.tensor(spoken(cells))
            torch.testing.assert_close(
                stored.grid.flatten(1)[:, number], expected, rtol=1e-2, atol=1e-3
            )


def _gini_is_the_mean_difference_of_pairs() -> None:
    from capscope.benchmarks.sparsity import gini

    maps = torch.rand(5, 7) ** 3
    maps[0], maps[1] = 0.4, torch.eye(7)[2]
    differences = (maps.unsqueeze(1) - maps.unsqueeze(2)).abs().mean((1, 2))
    torch.testing.assert_close(gini(maps), (differences / maps.mean(1) / 2).double())
    assert gini(torch.zeros(1, 4)).tolist() == [0]


def test_the_reader_of_the_guide_prepares_a_data_set(
    newcomer: Newcomer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bad_images import picture

    guide = "add-a-data-set"
    newcomer.add_file(guide, capscope.data)
    from capscope.data.json_lines import json_lines_source

    name = newcomer.add_line(guide, prepare.READERS, json_lines_source=json_lines_source)
    newcomer.add_line(guide, sources.FILES, 2)
    newcomer.add_name(name, "dataset", "properties", "reader")
    section = copy.deepcopy(newcomer.schema["properties"]["dataset"]["properties"]["karpathy"])
    section["required"].remove("instances")
    newcomer.schema["properties"]["dataset"]["properties"][name] = section
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    params = merge(tiny_params(), overlay(guide))
    params["dataset"]["evaluate"] = ["train"]
    parameters.validate(params)
    (tmp_path / "images").mkdir()
    picture().save(tmp_path / "images" / "a.jpg")
    (line,) = blocks(guide, "text")
    file = tmp_path / "captions.jsonl"
    file.write_text(line)
    prepare.prepare_dataset(tmp_path / "data", params["dataset"])
    (image,) = open_dataset(tmp_path / "data", params).images
    assert image.references == ("A dog runs.", "A running dog.")
    file.write_text(line + '{"file": "b.jpg"}\n')
    with pytest.raises(CapscopeError, match=r"captions\.jsonl: line 2: KeyError\('captions'\)"):
        prepare.prepare_dataset(tmp_path / "data", params["dataset"])
