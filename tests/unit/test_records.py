"""A results folder is verified byte by byte, and every row of a table leads to its run."""

import json

import pytest
from click.testing import CliRunner

from capscope.cli import capscope
from capscope.errors import CapscopeError
from capscope.files import MANIFEST, record_of, seal_file, write_json, write_manifest, write_text
from capscope.provenance import CRATE_FILE, chain_of, row_of, write_crate
from capscope.records import Records

SEEDS = (1, 2)


def product(folder, kind, inputs=(), **params):
    write_text(folder / "content.bin", kind)
    inputs = {name: record_of(path) for name, path in inputs}
    write_manifest(folder, kind, params=params, inputs=inputs)
    return folder


@pytest.fixture
def results(tmp_path):
    """Data, features, two runs with captions and a benchmark, and their scores."""
    top = tmp_path / "results" / "toy"
    write_json(top / "params.json", {})
    data = product(top / "data", "data", source="drawn")
    features = product(top / "features", "features", [("data", data)], layers=3)
    scores = {"data": record_of(data)}
    lines = ["system,stage,seed,split,metric,value", "human,,,test,CIDEr,2.0"]
    for seed in SEEDS:
        inputs = [("data", data), ("features", features)]
        run = product(top / "runs" / "gridtd" / "xe" / f"seed{seed}", "run", inputs, seed=seed)
        for split in ("test", "val"):
            captions = run / "decoded" / f"{split}.json"
            write_json(captions, [split, seed])
            seal_file(captions, "captions", params={"beam": 3}, inputs={"run": record_of(run)})
            scores[str(captions)] = record_of(captions)
        table = run / "benchmarks" / "deletion.csv"
        write_text(table, "measure,value\nauc,0.5\n")
        seal_file(table, "benchmark", params={"steps": 5}, inputs={"run": record_of(run)})
        lines.append(f"gridtd,xe,{seed},test,CIDEr,1.0")
    write_text(top / "scores" / "captions.csv", "\n".join(lines) + "\n")
    write_manifest(top / "scores", "scores", params={}, inputs=scores)
    return top


def problems(results):
    return {one.path.relative_to(results).as_posix() for one in Records(results).problems()}


def followed(table, row):
    return [
        (depth, name, record and record.content["kind"], record and record.content["params"])
        for depth, name, record in chain_of(table, row)
    ]


def test_whole_results_have_no_problems(results):
    assert problems(results) == set()


@pytest.mark.parametrize("harm", ["flip", "truncate", "zero", "remove"])
def test_every_damaged_file_is_found(results, harm):
    files = [path for path in results.rglob("*") if path.is_file() and path.name != "params.json"]
    for path in files:
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        damaged = {"flip": flipped, "truncate": content[:middle], "zero": bytes(len(content))}
        if harm != "remove":
            path.write_bytes(damaged[harm])
        elif "manifest" in path.name:
            continue  # a product without its manifest is not finished, and is made again
        else:
            path.unlink()
        assert problems(results), f"{harm} {path}"
        path.write_bytes(content)
    assert problems(results) == set()


@pytest.mark.parametrize(("written", "instead"), [("1e-05", "1E-05"), ("1e-05", "NaN")])
def test_a_manifest_that_means_the_same_but_was_changed_is_damaged(results, written, instead):
    manifest = product(results / "extra", "extra", rate=1e-5) / MANIFEST
    assert problems(results) == set()
    manifest.write_text(manifest.read_text().replace(written, instead))
    assert problems(results) == {"extra"}


def test_what_was_made_from_something_else_is_found(results):
    product(results / "features", "features", [("data", results / "data")], layers=4)
    assert problems(results) == {f"runs/gridtd/xe/seed{seed}" for seed in SEEDS}


def test_what_a_killed_process_left_is_found(results):
    (results / "data" / ".content.bin.part").touch()
    assert problems(results) == {"data/.content.bin.part"}


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(CapscopeError, match="holds no results"):
        Records(tmp_path)


def test_a_row_leads_to_its_run_and_to_the_data_and_to_no_other_run(results):
    assert followed(results / "scores" / "captions.csv", 3) == [
        (0, "table", "scores", {}),
        (1, "data", "data", {"source": "drawn"}),
        (1, str(results / "runs/gridtd/xe/seed2/decoded/test.json"), "captions", {"beam": 3}),
        (2, "run", "run", {"seed": 2}),
        (3, "data", "data", {"source": "drawn"}),
        (3, "features", "features", {"layers": 3}),
        (4, "data", "data", {"source": "drawn"}),
    ]


def test_a_row_of_a_tuned_run_leads_to_the_run_that_it_starts_from(results):
    start = results / "runs/gridtd/xe/seed1"
    run = product(results / "runs/gridtd/lrp_xe/seed1", "run", [("from", start)], seed=1)
    table = results / "report" / "tables" / "matrix.csv"
    write_text(table, "captioner,explainer,hit\ngridtd lrp_xe (seed 1),LRP,0.9\n")
    inputs = {str(one): record_of(one) for one in (run, results / "runs/gridtd/xe/seed2")}
    write_manifest(table.parents[1], "report", params={}, inputs=inputs, folders=["tables"])
    assert [name for _, name, *_ in followed(table, 1)] == [
        *("table", str(run), "from", "data", "features", "data"),
    ]


def test_the_row_of_humans_leads_to_the_data_alone(results):
    kinds = [kind for _, _, kind, _ in followed(results / "scores" / "captions.csv", 1)]
    assert kinds == ["scores", "data"]


def test_a_row_of_a_benchmark_leads_to_its_run(results):
    table = results / "runs/gridtd/xe/seed1/benchmarks/deletion.csv"
    kinds = [kind for _, _, kind, _ in followed(table, 1)]
    assert kinds == ["benchmark", "run", "data", "features", "data"]


def test_an_input_from_elsewhere_is_said_to_be(results):
    (results / "data" / MANIFEST).unlink()
    assert (1, None) in [
        (depth, kind) for depth, _, kind, _ in followed(results / "scores" / "captions.csv", 1)
    ]


@pytest.mark.parametrize(("row", "message"), [(0, "no row 0"), (4, "has 3 rows")])
def test_a_row_that_is_not_there_is_an_error(results, row, message):
    with pytest.raises(CapscopeError, match=message):
        row_of(results / "scores" / "captions.csv", row)


def test_the_commands_print_and_say_by_their_status_whether_all_is_well(results):
    table = str(results / "scores" / "captions.csv")
    told = CliRunner().invoke(capscope, ["provenance", table, "2"])
    assert told.exit_code == 0
    for text in ("seed1", "torch ", "source ", "device ", '"beam": 3', "drawn"):
        assert text in told.output
    assert "seed2" not in told.output
    assert CliRunner().invoke(capscope, ["verify", str(results)]).exit_code == 0
    (results / "data" / "content.bin").write_text("more")
    told = CliRunner().invoke(capscope, ["verify", str(results)])
    assert told.exit_code == 1
    assert "data/content.bin" in told.output
    assert f"rm -f {results / 'data' / MANIFEST} && snakemake all" in told.output


def test_the_crate_is_an_ro_crate_that_tells_what_made_each_product(results):
    rocrate = pytest.importorskip("rocrate.rocrate")
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    path = write_crate(results)
    assert path == results / CRATE_FILE
    assert {one: one.read_bytes() for one in before} == before
    crate = rocrate.ROCrate(results)
    actions = crate.get_by_type("CreateAction")
    assert len(actions) == 2 + 2 * len(SEEDS) * 2 + 1
    run = next(one for one in actions if '"seed": 2' in one["description"])
    assert run["result"][0].id == "runs/gridtd/xe/seed2/"
    assert {made_from.id for made_from in run["object"]} == {"data/", "features/"}
    assert run["instrument"]["name"] == "capscope"
    assert json.loads(path.read_text()) == json.loads(write_crate(results).read_text())
