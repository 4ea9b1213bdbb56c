"""A benchmark is one module and one line: parameters, help, workflow and report know it."""

from __future__ import annotations

import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import capscope
from capscope.benchmarks import BENCHMARKS, measure
from capscope.benchmarks.context import Context
from capscope.errors import CapscopeError
from capscope.report.explanations import OVERVIEW, SHOWN

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_has_a_module_that_measures(name: str) -> None:
    function = import_module(f"capscope.benchmarks.{name}").benchmark
    assert list(inspect.signature(function).parameters) == ["context"]


def test_parameters_report_and_docs_know_every_benchmark() -> None:
    schema = json.loads((Path(capscope.__file__).parent / "params.schema.json").read_text())
    allowed = schema["properties"]["benchmarks"]["properties"]["measures"]["items"]["enum"]
    assert set(allowed) == set(BENCHMARKS) == set(SHOWN)
    params = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    assert set(params["benchmarks"]["measures"]) == set(BENCHMARKS)
    judged = set(BENCHMARKS) - {"components"}  # which judges the captioner, not its explainers
    assert {column.benchmark for column in OVERVIEW} == judged
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    for name in BENCHMARKS:
        assert f"`{name}`" in text


def test_an_unknown_benchmark_is_named(tmp_path: Path) -> None:
    context = Context([], tmp_path, tmp_path, tmp_path, {})
    with pytest.raises(CapscopeError, match="unknown benchmark 'hits'; there are: ground_truth"):
        measure("hits", context)
