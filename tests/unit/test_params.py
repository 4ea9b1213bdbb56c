"""Parameters: every mistake is one error that names the key."""

import json
import os
from pathlib import Path

import pytest
import yaml

from capscope.errors import CapscopeError
from capscope.params import expand_path, load_params, merge, schema

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"


def load(*assignments, overlay=None, folder=None):
    paths = [PARAMS]
    if overlay is not None:
        paths.append(folder / "overlay.yaml")
        paths[-1].write_text(overlay, encoding="utf-8")
    return load_params(paths, assignments)


@pytest.mark.parametrize("overlay", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_every_overlay_of_the_project_is_valid(overlay):
    below = overlay.with_name(f"{overlay.stem.rpartition('_')[0]}.yaml")  # coco2014_difnet.yaml's
    paths = [PARAMS, *([below] if below.exists() else []), overlay]
    assert load_params(paths)["dataset"]["name"] == overlay.stem


def test_every_key_of_the_schema_is_described_and_no_mapping_takes_unknown_keys():
    def check(part, place):
        assert part.get("description"), place
        if part.get("type") == "object":
            assert (
                part["additionalProperties"] is False
                or "captioner" in (part["additionalProperties"]["properties"])
            ), place
        for key, value in part.get("properties", {}).items():
            check(value, f"{place}.{key}")

    check(schema(), "")


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("decoding.baem=3", "decoding.baem: unknown key; did you mean 'beam'?"),
        ("zzz=3", "zzz: unknown key; known: dataset, features"),
        ("systems.gridtd.xe.epochs=many", "systems.gridtd.xe.epochs: 'many' is not of type"),
        ("systems.gridtd.xe.epochs=0", "systems.gridtd.xe.epochs: 0 is less than"),
        ("systems.gridtd.xe.learning_rate=1e-3", "write 1.0e-3"),
        ("systems.gridtd.model.dropout=true", "systems.gridtd.model.dropout: True is not of type"),
        ("systems.gridtd.model.heads=4", "systems.gridtd.model.heads: unknown key"),
        ("systems.gridtd.model.global_from=words", "systems.gridtd.model.global_from: 'words' is"),
        ("systems.gridtd.captioner=aoa", "systems.gridtd.model: 'heads' is a required property"),
        ("systems.gridtd.captioner=rnn", "systems.gridtd.model: 'visual' is a required property"),
        ("systems.gridtd.captioner=attention_lstm", "systems.gridtd.model.dropout: unknown key"),
        ("systems.GRID={}", "GRID"),
        ("systems.other={}", "systems.other: 'captioner' is a required property"),
        ("dataset.reader=flickr", "dataset.reader: 'flickr' is not one of"),
        ("dataset.reader=karpathy", "dataset.karpathy.annotations"),
        ("dataset.name=../elsewhere", "dataset.name: '../elsewhere' does not match"),
        ("dataset.scenes=5", "dataset.scenes: 5 is not of type 'object'"),
        ("features.grid.network=vgg16", "features.grid.weights: 'trained' should not be valid"),
        ("features.grid.weights=download", "features.grid.weights: 'download' should not be"),
        ("seeds=[]", "seeds: [] should be non-empty"),
        ("seeds=[1,1]", "seeds: [1, 1] has non-unique elements"),
        ("explanations.explainers=[guess]", "explanations.explainers.0: 'guess' is not one of"),
        ("decoding", "expected KEY=VALUE"),
        ("decoding.beam={", "not valid YAML"),
    ],
)
def test_a_wrong_assignment_is_refused_by_name(assignment, named):
    with pytest.raises(CapscopeError) as caught:
        load(assignment)
    assert named in str(caught.value)


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(CapscopeError) as caught:
        load("decoding.beam=0", "nonsense=1", "report.images=none")
    for key in ("decoding.beam", "nonsense", "report.images"):
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        ("decoding: {baem: 3}", "decoding.baem"),
        ("1: 2", "1: unknown key"),
        ("- a list", "expected a mapping"),
        ("", "expected a mapping"),
        ("decoding: [", "not valid YAML"),
        ("decoding: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_a_wrong_overlay_is_refused_by_name(tmp_path, overlay, named):
    with pytest.raises(CapscopeError) as caught:
        load(overlay=overlay, folder=tmp_path)
    assert named in str(caught.value)


def test_small_numbers_survive_the_way_through_json_that_jobs_take(tmp_path):
    changed = load(
        "systems.gridtd.xe.learning_rate=0.00005", "systems.gridtd.xe.clip_value=1.0e+20"
    )
    path = tmp_path / "params.json"
    path.write_text(json.dumps(changed))
    assert load_params([path]) == changed
    path.write_text("{")
    with pytest.raises(CapscopeError, match=r"params\.json is not valid JSON"):
        load_params([path])


def test_an_overlay_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CapscopeError, match=r"cannot read parameters .*missing\.yaml"):
        load_params([PARAMS, tmp_path / "missing.yaml"])


def test_an_overlay_changes_only_what_it_names(tmp_path):
    base = load()
    changed = load(overlay="decoding: {beam: 7}\nseeds: [4, 5]", folder=tmp_path)
    assert changed["decoding"] == base["decoding"] | {"beam": 7}
    assert changed["seeds"] == [4, 5]
    assert changed["systems"] == base["systems"]


def test_assignments_win_over_files_and_take_yaml_values(tmp_path):
    changed = load("seeds=[7]", "decoding.beam=2", overlay="decoding: {beam: 7}", folder=tmp_path)
    assert changed["seeds"] == [7]
    assert changed["decoding"]["beam"] == 2


def test_merging_leaves_its_arguments_alone():
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": [1]}
    before = json.dumps([base, over])
    assert merge(base, over) == {"a": {"b": 3, "c": 2}, "d": [1]}
    assert json.dumps([base, over]) == before


def test_paths_take_variables_with_and_without_a_default(monkeypatch):
    monkeypatch.setenv("CAPSCOPE_TEST_ROOT", "/data")
    monkeypatch.delenv("CAPSCOPE_TEST_NONE", raising=False)
    assert expand_path("${CAPSCOPE_TEST_ROOT}/a.json") == Path("/data/a.json")
    assert expand_path("${CAPSCOPE_TEST_NONE:-../b}/a.json") == Path("../b/a.json")
    assert expand_path("~/a.json") == Path(os.path.expanduser("~")) / "a.json"  # noqa: PTH111
    with pytest.raises(CapscopeError, match="set the environment variable CAPSCOPE_TEST_NONE"):
        expand_path("${CAPSCOPE_TEST_NONE}/a.json")


def test_the_parameter_file_comments_every_block():
    params = yaml.safe_load(PARAMS.read_text("utf-8"))
    assert list(params) == list(schema()["properties"])


def test_experiments_of_dvc_can_read_the_parameters():
    text = (ROOT / "params.yaml").read_text("utf-8")
    values = [line.split("#")[0] for line in text.splitlines()]
    assert not [value for value in values if "${" in value], "dvc exp run -S would expand it"
