"""Paired tests of the matrix against slow twins, and answers that follow from the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from capscope.report.answers import (
    NOT_RUN,
    answer_tables,
    answers,
    do_attention_weights_explain,
    does_a_second_flow_help,
    does_lrp_fine_tuning_help,
    ranked,
    which_explainer,
)
from capscope.report.evidence import Column, Evidence
from capscope.report.matrix import holm, paired_tests
from capscope.report.results import Results, RunResults

HIT = {"resolution": "pixels", "word_kind": "noun", "split": "test", "measure": "hit"}
IMAGES = 40
SHARES = {"lrp": 0.9, "attention": 0.6, "gradcam": 0.55, "random": 0.2}


def sums(shares: dict[str, float], key: dict[str, str], seed: int = 0) -> pd.DataFrame:
    """Return scores of 1 to 3 words of each image, drawn with a share of hits."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for explainer, share in shares.items():
        for image in range(IMAGES):
            words = int(random.integers(1, 4))
            part = float(random.binomial(words, share))
            rows.append(
                {"explainer": explainer, **key, "image_id": image, "part": part, "whole": words}
            )
    return pd.DataFrame(rows)


def table_of(details: pd.DataFrame) -> pd.DataFrame:
    """Return the benchmark's table that belongs to the sums of images."""
    keys = ["explainer", "resolution", "word_kind", "split", "measure"]
    found = details.groupby(keys, sort=False)[["part", "whole"]].sum().reset_index()
    found["value"] = found["part"] / found["whole"]
    found["low"], found["high"], found["n"] = found["value"], found["value"], found["whole"]
    return found.drop(columns=["part", "whole"])


def run_of(system: str, stage: str, details: dict[str, pd.DataFrame], seed: int = 1) -> RunResults:
    tables = {name: table_of(frame) for name, frame in details.items()}
    return RunResults(Path("x"), system, stage, seed, {"captioner": system}, tables, details)


def results_of(runs: list[RunResults], folder: Path = Path("x"), **tables: Any) -> Results:
    empty = dict.fromkeys(("captions", "per_image", "comparisons", "seeds"), pd.DataFrame())
    titles = {"lrp": "LRP", "attention": "attention", "gradcam": "Grad-CAM"}
    return Results(
        folder=folder,
        dataset="toy",
        **(empty | tables),
        published=pd.DataFrame(),
        runs=tuple(runs),
        titles=titles,
        controls=frozenset({"random"}),
    )


def both_rasters(shares: dict[str, float], seed: int = 0) -> dict[str, pd.DataFrame]:
    pooled = sums(shares, HIT | {"resolution": "pooled"}, seed + 10)
    return {"ground_truth": pd.concat([sums(shares, HIT, seed), pooled])}


def test_paired_tests_are_those_of_scipy_and_of_images_drawn_one_by_one() -> None:
    details = sums(SHARES, HIT)
    found = paired_tests(results_of([run_of("gridtd", "xe", {"ground_truth": details})]))
    assert len(found) == 6
    assert set(found["same"]) == {"gridtd xe"}
    row = found[(found["first"] == "lrp") & (found["second"] == "attention")].iloc[0]
    one, other = (details[details["explainer"] == name] for name in ("lrp", "attention"))
    pooled = [side["part"].sum() / side["whole"].sum() for side in (one, other)]
    assert row["difference"] == pytest.approx(pooled[0] - pooled[1])
    means = [(side["part"] / side["whole"]).to_numpy() for side in (one, other)]
    expected = ttest_rel(*means)
    assert row["t"] == pytest.approx(expected.statistic)
    assert row["p_t_test"] == pytest.approx(expected.pvalue)
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(2000):
        chosen = random.integers(0, IMAGES, IMAGES)
        parts = [side.iloc[chosen] for side in (one, other)]
        drawn.append(np.subtract(*(part["part"].sum() / part["whole"].sum() for part in parts)))
    expected_ends = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose([row["low"], row["high"]], expected_ends, atol=0.03)
    assert row["images"] == IMAGES


def test_seeds_are_pooled_and_captioners_compared_by_the_same_explainer() -> None:
    runs = [
        run_of("gridtd", "xe", {"ground_truth": sums(SHARES, HIT, seed)}, seed) for seed in (1, 2)
    ]
    other = run_of("aoa", "xe", {"ground_truth": sums(SHARES | {"lrp": 0.4}, HIT, 3)})
    found = paired_tests(results_of([*runs, other]))
    across = found[found["compared"] == "captioners"].set_index("same")
    assert set(across.index) == {"lrp", "attention", "gradcam"}  # no control
    both = pd.concat([run.details["ground_truth"] for run in runs]).query("explainer == 'lrp'")
    alone = other.details["ground_truth"].query("explainer == 'lrp'")
    values = [side["part"].sum() / side["whole"].sum() for side in (both, alone)]
    assert abs(across.loc["lrp", "difference"]) == pytest.approx(values[0] - values[1])


def test_p_values_are_corrected_as_holm_says() -> None:
    p_values = [0.01, 0.04, float("nan"), 0.03, 0.5]
    ordered = sorted(p for p in p_values if p == p)
    expected = {
        p: max(min(1.0, (len(ordered) - k) * ordered[k]) for k in range(ordered.index(p) + 1))
        for p in ordered
    }
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        assert corrected == pytest.approx(expected.get(p, float("nan")), nan_ok=True)
    assert holm([]) == []


def test_the_explainer_that_finds_most_is_named_with_its_lead_and_cost(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "relevance"
    logs.mkdir(parents=True)
    (logs / "a-xe-seed1-test.json").write_text(
        '{"lrp": {"words": 9, "cpu_ms_per_word": 12.5}, "gradcam": {"cpu_ms_per_word": 2.0}}'
    )
    runs = [run_of(name, "xe", both_rasters(SHARES, seed)) for seed, name in enumerate("ab")]
    answer = which_explainer(Evidence.of(results_of(runs, tmp_path)))
    values = [
        run.benchmarks["ground_truth"].query("explainer == 'lrp' and resolution == 'pixels'")
        for run in runs
    ]
    share = np.mean([value["value"].iloc[0] for value in values])
    assert answer.verdict == "LRP"
    text = " ".join(answer.sentences)
    assert f"for {100 * share:.0f} % of nouns (test split, mean over 2 captioners)" in text
    assert "first for 2 of 2 captioners" in text
    assert "takes 12.5 ms of CPU time; Grad-CAM, the cheapest of the others, 2.0 ms" in text
    assert answer.evidence["explainer"].tolist()[0] == "LRP"
    assert "random" not in answer.evidence["explainer"].tolist()


def test_an_explainer_does_not_lead_because_it_fits_the_easy_captioners_alone() -> None:
    hits = pd.DataFrame(
        {"attention": [0.9, np.nan], "lrp": [0.95, 0.5], "gradcam": [0.4, 0.3]}, ["gridtd", "rnn"]
    )
    assert hits.mean().idxmax() == "attention"
    assert ranked(hits) == ["lrp", "attention", "gradcam"]


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        (SHARES, "in part"),
        (SHARES | {"attention": 0.9}, "yes, as far as measured"),
        (SHARES | {"attention": 0.2}, "no better than controls"),
        (SHARES | {"attention": SHARES["random"] + 0.07}, "not shown by so few words"),
    ],
)
def test_attention_is_held_against_controls_and_lrp(shares: dict[str, float], verdict: str) -> None:
    runs = [run_of(name, "xe", both_rasters(shares, seed)) for seed, name in enumerate("ab")]
    answer = do_attention_weights_explain(Evidence.of(results_of(runs)))
    assert answer.verdict == verdict
    assert answer.evidence["captioner"].tolist() == ["a xe", "b xe"]


def test_a_second_flow_is_compared_with_the_same_captioner_without_it() -> None:
    key = {"resolution": "grid", "word_kind": "all", "split": "test", "measure": "vision"}
    runs = [
        run_of("difnet", "xe", {"contribution": sums({"lrp": 0.8}, key, 1)}),
        run_of("base", "xe", {"contribution": sums({"lrp": 0.3}, key, 2)}),
        run_of("base", "scst", {"contribution": sums({"lrp": 0.3}, key, 3)}),
    ]
    answer = does_a_second_flow_help(Evidence.of(results_of(runs)))
    assert answer.verdict == "yes"
    assert len(answer.evidence) == 1
    assert "in difnet xe" in answer.sentences[0]
    assert does_a_second_flow_help(Evidence.of(results_of(runs[1:]))).verdict == NOT_RUN


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [((0.05, 0.04), "yes"), ((0.05, -0.04), "mixed: up in 1, down in 1 of 2")],
)
def test_fine_tuning_is_judged_by_sure_changes_of_precision(
    differences: tuple[float, float], verdict: str
) -> None:
    lines, scores = [], []
    for system, difference in zip("ab", differences, strict=True):
        for metric, change in (("object_precision", difference), ("CIDEr", 0.001)):
            lines.append(
                {
                    "split": "test",
                    "metric": metric,
                    "first": f"{system} lrp_xe",
                    "second": f"{system} xe",
                    "difference": change,
                    "low": change - 0.01,
                    "high": change + 0.01,
                    "p_bootstrap": 0.01 if metric == "object_precision" else 0.8,
                    "p_t_test": 0.01,
                    "direction": "higher",
                }
            )
            for stage in ("xe", "lrp_xe"):
                key = {"system": system, "stage": stage, "seed": "1", "split": "test"}
                value = 0.5 + change * (stage == "lrp_xe")
                scores.append(key | {"metric": metric, "value": value})
    runs = [run_of(system, stage, {}) for system in "ab" for stage in ("xe", "lrp_xe")]
    results = results_of(runs, comparisons=pd.DataFrame(lines), captions=pd.DataFrame(scores))
    answer = does_lrp_fine_tuning_help(Evidence.of(results))
    assert answer.verdict == verdict
    assert "a, xe to lrp_xe: object precision 0.500 to 0.550, +0.050" in answer.sentences[0]
    assert "CIDEr +0.001" in answer.sentences[0]
    assert "one seed" in answer.sentences[-1]


def test_what_was_not_run_says_so_and_what_it_needs() -> None:
    evidence = Evidence.of(results_of([run_of("gridtd", "xe", {})]))
    found = answers(evidence)
    assert [answer.verdict for answer in found] == [NOT_RUN] * 4
    assert all(answer.sentences[0].startswith("Not run: it needs ") for answer in found)
    (table,) = answer_tables(found)
    assert table.cells["answer"].tolist() == [NOT_RUN] * 4


def test_a_benchmark_that_found_no_words_was_run_all_the_same() -> None:
    empty = pd.DataFrame(columns=["explainer", "resolution", "word_kind", "split", "measure"])
    run = RunResults(Path("x"), "gridtd", "xe", 1, {}, {"ground_truth": empty})
    evidence = Evidence.of(results_of([run]))
    for answer in (which_explainer(evidence), do_attention_weights_explain(evidence)):
        assert answer.verdict == "nothing to measure"
        assert "names an object that its image shows" in answer.sentences[0]


def test_a_lead_is_looked_up_in_both_directions() -> None:
    runs = [run_of("gridtd", "xe", both_rasters(SHARES))]
    evidence = Evidence.of(results_of(runs))
    column = Column("ground_truth", "pixels", "noun", "hit")
    there = evidence.lead(column, "lrp", "attention", "gridtd xe")
    back = evidence.lead(column, "attention", "lrp", "gridtd xe")
    assert there is not None
    assert back is not None
    assert there.difference == -back.difference
    assert (there.low, there.high) == (-back.high, -back.low)
    assert there.is_ahead
    assert not back.is_ahead
    assert evidence.lead(column, "lrp", "nobody", "gridtd xe") is None
