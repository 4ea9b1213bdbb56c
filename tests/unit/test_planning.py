"""Plans of workflows: arithmetic on measured rates, and nothing invented."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from capscope.cli.plan import command
from capscope.errors import CapscopeError
from capscope.params import load_params, merge
from capscope.planning import IMAGES, Rate, plan, read_rates

ROOT = Path(__file__).resolve().parents[2]
COCO = ["--params", str(ROOT / "params.yaml"), "--params", str(ROOT / "config/coco2014.yaml")]


@pytest.fixture(scope="module")
def params():
    return load_params([ROOT / "params.yaml", ROOT / "config/coco2014.yaml"])


def rates(**found):
    key = ("cpu", "coco2014", "gridtd")
    return {(*key, step): rate for step, rate in found.items()}


def test_hours_are_items_over_rates(params):
    only = merge(params, {"systems": {"gridtd": {"stages": ["xe"]}}, "run_systems": ["gridtd"]})
    measured = rates(
        xe=Rate("caption", 100.0, 2000, 10**7), decode=Rate("image", 50.0, 1000, 10**7)
    )
    features, xe, decode, relevance = plan(only, measured, "cpu", IMAGES["coco2014"])
    validation = 20 * 5000 / 50
    assert xe.items == 20 * 5 * 113287
    assert xe.hours == pytest.approx((20 * 5 * 113287 / 100 + validation) / 3600)
    assert xe.disk_gb == pytest.approx(2 * 4 * 10**7 / 1e9)
    assert decode.hours == pytest.approx(5000 / 50 / 3600)
    assert features.hours is relevance.hours is None, "what nobody measured is not made up"
    own = params["explanations"]
    assert relevance.items == 500 * len([*own["explainers"], *own["controls"]])

    scatter = {"extract": 16, "relevance": 4}
    features, _, decode, relevance = plan(only, measured, "cpu", IMAGES["coco2014"], scatter)
    assert (features.jobs, decode.jobs, relevance.jobs) == (16, 1, 4)


def test_a_stage_that_is_only_a_start_is_planned_too(params):
    chosen = merge(params, {"systems": {"gridtd": {"stages": ["lrp_scst"]}}})
    measured = rates(decode=Rate("image", 50.0, 1000, 1))
    steps = plan(chosen, measured, "cpu", IMAGES["coco2014"])
    own = [one.step for one in steps if one.system == "gridtd"]
    assert own[own.index("xe") :][:3] == ["xe", "scst", "lrp_scst"]


def test_the_documentation_quotes_the_plan_of_the_measured_rates():
    done = CliRunner().invoke(command, COCO, catch_exceptions=False)
    assert done.exit_code == 0
    assert "Estimate" in done.output
    text = (ROOT / "docs" / "cluster.md").read_text("utf-8")
    assert done.output in text, "capscope plan says something else: put it into docs/cluster.md"


def test_every_rate_says_what_measured_it():
    lines = (ROOT / "src/capscope/rates.csv").read_text("utf-8").splitlines()
    assert all("python benchmarks/rates.py" in line for line in lines[1:])
    assert len(read_rates()) == len(lines) - 1


def test_an_unknown_device_or_split_is_named(params):
    with pytest.raises(CapscopeError, match="no rates of the device 'abacus'; there are: cpu"):
        plan(params, read_rates(), "abacus", IMAGES["coco2014"])
    with pytest.raises(CapscopeError, match=r"the split 'val'.*--images val=N"):
        plan(params, read_rates(), "cpu", {"train": 3, "test": 1})


def test_a_table_of_rates_that_is_none_is_refused(tmp_path):
    (tmp_path / "rates.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CapscopeError, match="expected the columns device, dataset"):
        read_rates(tmp_path / "rates.csv")
    header = (ROOT / "src/capscope/rates.csv").read_text("utf-8").splitlines()[0]
    (tmp_path / "rates.csv").write_text(f"{header}\ncpu,coco2014,gridtd,xe,caption,fast,1,1,x\n")
    with pytest.raises(CapscopeError, match="line 2"):
        read_rates(tmp_path / "rates.csv")
