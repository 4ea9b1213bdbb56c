"""The recipes of the papers: whole, a source at every value, and a workflow that plans them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from capscope.data.sources import annotation_files
from capscope.metrics.registry import METRICS
from capscope.params import expand_path, load_params, merge, run_systems

ROOT = Path(__file__).resolve().parents[2]
DATA_SETS = ("flickr30k", "coco2017", "coco2014", "coco_pt")
LAID_OVER = {
    path.stem: path.stem.rpartition("_")[0]
    for path in (ROOT / "config").glob("*.yaml")
    if path.stem.rpartition("_")[0] in DATA_SETS
}
"""Overlays that bring the features and the explanations of one paper, and what is below them."""
TRAINED = {
    "flickr30k": {"gridtd", "aoa", "adaptive"},
    "coco2017": {"gridtd", "aoa"},
    "coco2014": {"gridtd", "aoa"},
    "coco_pt": {"rnn", "lstm", "attention_lstm"},
    "coco2014_spatial": {"spatial", "object_relation", "show_attend_tell", "show_tell"},
    "coco2014_difnet": {"base", "difnet"},
    "coco2017_latent": {"gridtd_bu"},
    "flickr30k_latent": {"gridtd_bu"},
}


def overlays(name):
    names = [LAID_OVER[name], name] if name in LAID_OVER else [name]
    return [ROOT / "config" / f"{own}.yaml" for own in names]


def test_every_paper_has_its_overlay():
    assert set(TRAINED) == {*DATA_SETS, *LAID_OVER}


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_recipe_trains_what_its_paper_trained_and_takes_no_value_from_the_demo(name):
    params, own = load_params([ROOT / "params.yaml", *overlays(name)]), {}
    for path in overlays(name):
        own = merge(own, yaml.safe_load(path.read_text("utf-8")))
    systems = run_systems(params)
    assert set(systems) == TRAINED[name]

    def check(merged, written, place):
        for key, value in merged.items():
            assert key in written, f"{place}.{key} is the demo's"
            if isinstance(value, dict):
                check(value, written[key], f"{place}.{key}")

    stages = {"xe", "scst", "lrp_xe", "lrp_scst"}
    for system, settings in systems.items():
        used = {key: value for key, value in settings.items() if key not in stages}
        used |= {stage: settings[stage] for stage in settings["stages"]}
        check(used, own["systems"][system], system)


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_value_of_a_recipe_says_where_it_is_from(name):
    lines = (ROOT / "config" / f"{name}.yaml").read_text("utf-8").splitlines()
    start = lines.index("systems:")
    end = next(at for at in range(start + 1, len(lines)) if re.match(r"\w", lines[at]))
    named = re.compile(r" +(?!captioner|features|stages|parity|<<)\w+: +[^#&*{ ]")
    values = [line for line in lines[start:end] if named.match(line)]
    assert len(values) > 20
    assert [line for line in values if "#" not in line] == []


def test_published_values_are_of_metrics_that_are_computed_and_say_where_they_are_from():
    import pandas as pd

    tables = [pd.read_csv(path) for path in (ROOT / "results/published").glob("*.csv")]
    rows = pd.concat(tables)
    known = {*METRICS, "validation CIDEr", "training loss"}
    assert set(rows["metric"]) <= known
    assert rows["source"].notna().all()
    assert set(rows["dataset"]) <= set(DATA_SETS)
    fractions = rows[rows["metric"].isin(METRICS)]["value"].dropna()
    assert fractions.between(0, 1.5).all(), "fractions, not percentages"
    for row in rows.itertuples():
        trained = (TRAINED[name] for name in TRAINED if name.startswith(row.dataset))
        assert row.system in set().union(*trained, {"gridtd_bu", "aoa_bu"}), row


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["flickr30k", "coco2017_latent", "coco2014_spatial", "coco2014_difnet", "coco_pt"]
)
def test_a_recipe_plans_its_workflow_once_its_files_are_there(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSCOPE_DATA", str(tmp_path / "data"))
    params = load_params([ROOT / "params.yaml", *overlays(name)])
    named = re.findall(r"\$\{CAPSCOPE_DATA[^'\"]*", str(params))
    for path in (*map(expand_path, named), *annotation_files(params["dataset"]).values()):
        folder = path if not path.suffix else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    command = [Path(sys.executable).with_name("snakemake"), "--cores", "2", "--dry-run"]
    command += ["--snakefile", ROOT / "Snakefile", "--workflow-profile", ROOT / "profiles/default"]
    command += ["--configfile", *overlays(name), "--", "all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.M))
    stages = sum(len(system["stages"]) for system in run_systems(params).values())
    assert int(planned["train_captioner"]) == stages
    assert {"decode", "relevance", "measure", "write_report"} <= set(planned)
