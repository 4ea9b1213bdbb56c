"""Methods x measures x data sets: from the tables of several reports to one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from capscope.cli.methods import command
from capscope.errors import CapscopeError
from capscope.report.methods import method_tables

KEY = {"split": "test", "resolution": "grid", "word_kind": "noun"}


def write_tables(folder: Path, dataset: str, shift: float) -> Path:
    tables = folder / dataset / "report" / "tables"
    tables.mkdir(parents=True)
    run = {"dataset": dataset, "system": "gridtd", "stage": "xe", "seed": 1}
    values = {("lrp", "drop vf_3_min"): 1.0, ("lime", "drop vf_3_min"): 0.5, ("lrp", "score"): 0.2}
    rows = [
        run
        | KEY
        | {"benchmark": "deletion" if measure == "score" else "latent_ablation"}
        | {"explainer": explainer, "measure": measure}
        | {"value": value + shift, "low": value, "high": value + 2 * shift}
        for (explainer, measure), value in values.items()
    ]
    pd.DataFrame(rows).to_csv(tables / "matrix.csv", index=False)
    test = {"dataset": dataset, "benchmark": "latent_ablation", "measure": "drop vf_3_min", **KEY}
    test |= {"compared": "explainers", "same": "gridtd xe", "first": "lrp", "second": "lime"}
    test |= {"difference": 0.5, "low": 0.1, "high": 0.9, "p_holm": 0.01}
    pd.DataFrame([test, test | {"compared": "captioners"}]).to_csv(
        tables / "paired_tests.csv", index=False
    )
    return folder / dataset


def test_every_method_of_every_data_set_has_a_row(tmp_path: Path) -> None:
    folders = [write_tables(tmp_path, name, 0.1 * n) for n, name in enumerate(("a", "b"), 1)]
    methods, tests = method_tables(folders, ["latent_ablation"], "test")
    cells = methods.cells.set_index(["dataset", "explainer"])["drop vf_3_min"]
    assert list(cells.index) == [("a", "lrp"), ("a", "lime"), ("b", "lrp"), ("b", "lime")]
    assert cells["b", "lrp"] == "1.200 [1.000, 1.400]"
    assert len(tests.cells) == 2  # of explainers alone
    assert set(tests.cells["methods"]) == {"lrp - lime"}


def test_tables_are_written_and_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_tables(tmp_path, "a", 0.1)
    found = CliRunner().invoke(command, [str(folder), f"--out={tmp_path / 'out'}"])
    assert found.exception is None
    assert (tmp_path / "out" / "methods_test.md").exists()
    assert len(pd.read_csv(tmp_path / "out" / "methods_tests_test.csv")) == 1
    with pytest.raises(CapscopeError, match="no measurement of removal"):
        method_tables([folder], ["removal"], "test")
    with pytest.raises(CapscopeError, match="run `capscope report` first"):
        method_tables([tmp_path / "b"], ["removal"], "test")
    (folder / "report" / "tables" / "matrix.csv").write_text("")
    with pytest.raises(CapscopeError, match="is no table"):
        method_tables([folder], ["removal"], "test")
