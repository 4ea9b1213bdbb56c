"""Tables of scores: pairs of systems, seeds, signatures, frequent words at cut-offs."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from capscope.data.annotations import Dataset, Image
from capscope.data.naming import scene_words
from capscope.metrics.comparison import compare_drawn
from capscope.metrics.frequent import frequent_object_words, frequent_word_measures
from capscope.metrics.registry import in_order, metric
from capscope.metrics.rows import HUMAN, Captions, Row, signature_text
from capscope.metrics.statistics import average, mean, percentiles, ratio, resample
from capscope.metrics.summary import summary
from capscope.metrics.tables import COMPARISONS, SEEDS, Tables, as_csv

IMAGES = 30
SETTINGS = {"bootstrap": 200, "seed": 4}
RNG = np.random.default_rng(0)
DATASET = Dataset(
    "toy", Path(), tuple(Image(k, f"{k}.png", "test", ("a",), (("a",),)) for k in range(IMAGES))
)
SIGNATURE = {"end_token": "both", "frequencies": "training", "baseline": "greedy", "samples": 5}


def row(system, seed, level, stage="xe", signature=""):
    measures = {
        "CIDEr": mean(RNG.normal(level, 1, IMAGES)),
        "CHAIR-i": ratio(RNG.integers(0, 2, IMAGES), RNG.integers(1, 4, IMAGES)),
    }
    texts = tuple(f"{system} says {k}" for k in range(IMAGES))
    return Row(Captions(system, stage, seed, "test", texts, signature), measures)


ROWS = [
    Row(Captions(HUMAN, "", "", "test", ()), {"CIDEr": mean(RNG.normal(3, 1, IMAGES))}),
    *(row("a", seed, 2.0) for seed in (1, 2, 3)),
    row("b", 1, 1.0),
    row("b", 1, 2.5, "scst", signature_text(SIGNATURE)),
]


@pytest.fixture(scope="module")
def tables():
    return Tables.of(DATASET, ROWS, SETTINGS)


def test_every_run_has_its_interval(tables):
    line = next(one for one in tables.captions if one["system"] == "a" and one["seed"] == 2)
    measure = ROWS[2].measures["CIDEr"]
    assert (line["low"], line["high"]) == pytest.approx(
        percentiles(resample([measure], resamples=200, seed=4)[0])
    )
    assert len(tables.captions) == 1 + 5 * 2
    assert len(tables.images) == 6 * IMAGES


def test_systems_are_compared_as_means_over_seeds_and_humans_are_not(tables):
    pairs = [(one["first"], one["second"], one["metric"]) for one in tables.comparisons]
    expected = [("a xe", "b xe"), ("a xe", "b scst"), ("b xe", "b scst")]
    assert pairs == [(*pair, name) for name in ("CIDEr", "CHAIR-i") for pair in expected]
    line = tables.comparisons[0]
    seeds = [ROWS[k].measures["CIDEr"] for k in (1, 2, 3)]
    other = ROWS[4].measures["CIDEr"]
    assert (line["first_seeds"], line["second_seeds"], line["images"]) == (3, 1, IMAGES)
    assert line["difference"] == pytest.approx(average(seeds).value - other.value)
    t_test = ttest_rel(np.mean([one.per_image for one in seeds], axis=0), other.per_image)
    assert line["t"] == pytest.approx(t_test.statistic)
    assert line["p_t_test"] == pytest.approx(t_test.pvalue)
    assert line["low"] < line["difference"] < line["high"]
    assert line["p_bootstrap"] == pytest.approx(2 / 201)  # all resamples are on one side


def test_mean_and_spread_over_seeds(tables):
    line = next(one for one in tables.seeds if (one["system"], one["metric"]) == ("a", "CIDEr"))
    values = [ROWS[k].measures["CIDEr"].value for k in (1, 2, 3)]
    assert line["seeds"] == 3
    assert (line["mean"], line["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (line["min"], line["max"]) == (min(values), max(values))
    alone = next(one for one in tables.seeds if (one["system"], one["stage"]) == ("b", "scst"))
    assert alone["sd"] is None
    assert alone["signature"] == "end token both, df training, baseline greedy"


def test_a_reinforced_row_carries_its_signature_everywhere(tables):
    text = "end token both, df training, baseline greedy"
    signed = {one["stage"] for one in tables.captions if one["signature"] == text}
    assert signed == {"scst"}
    assert f"b scst seed 1: {text}" in summary(ROWS, tables)
    assert text in json.dumps(tables.to_json())


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ({}, ""),
        ({"scheduled_sampling": 0.1}, ""),
        (SIGNATURE, "end token both, df training, baseline greedy"),
        ({"end_token": True, "df": "batch"}, "end token True, df batch"),
        (
            {**SIGNATURE, "cider_weight": 1.0, "bleu_weight": 0.5},
            "end token both, df training, baseline greedy, reward 1 CIDEr-D + 0.5 BLEU-4",
        ),
    ],
)
def test_a_signature_is_one_line_and_only_of_rewards_and_changed_captions(signature, text):
    assert signature_text(signature) == text
    changed = f"{text}; repeated words said once".removeprefix("; ")
    assert signature_text(signature, {"beam": 5, "collapse": True}) == changed


def test_tables_are_written_with_their_header_even_if_there_is_nothing_to_compare(tmp_path):
    Tables.of(DATASET, ROWS[:2], SETTINGS).write(tmp_path)
    assert (tmp_path / "comparisons.csv").read_text() == ",".join(COMPARISONS) + "\n"
    with (tmp_path / "seeds.csv").open() as stream:
        assert tuple(next(csv.reader(stream))) == SEEDS
    assert as_csv([{"x": float("nan"), "y": None, "z": 0.123456789}]) == "x,y,z\n,,0.123457\n"


def test_undefined_numbers_are_null_in_json():
    undefined = ratio(np.zeros(IMAGES), np.zeros(IMAGES))
    rows = [Row(one.captions, {"CHAIR-i": undefined}) for one in (ROWS[1], ROWS[4])]
    tables = Tables.of(DATASET, rows, SETTINGS)
    text = json.dumps(tables.to_json(), allow_nan=False)
    assert json.loads(text)["scores"][0]["value"] is None
    assert tables.comparisons[0]["images"] == 0
    assert tables.seeds == []
    assert "nan" in summary(rows, tables)


def test_the_summary_shows_seeds_and_pairs(tables):
    text = summary(ROWS, tables)
    assert "a xe, 3 seeds" in text
    assert "a xe - b xe" in text
    assert text.count("p (bootstrap)") == 3


def test_frequent_object_words_are_those_of_most_images():
    references = [
        [["a", "dog", "dog"], ["the", "dogs"]],
        [["a", "dog", "and", "a", "cat"]],
        [["cat"], ["cat", "tree"]],
    ]
    assert frequent_object_words(scene_words(), references) == ["cat", "dog", "dogs", "tree"]


def test_words_at_a_cutoff_score_as_their_list_does():
    words = ["cat", "dog", "bus"]
    references, captions = [[["a", "cat"]], [["a", "dog"], ["x"]]], [["cat"], ["a", "cat"]]
    at_two = frequent_word_measures(words, references, captions, 2)
    listed = frequent_word_measures(words[:2], references, captions)
    assert list(at_two) == ["word_precision@2", "word_recall@2", "word_f1@2"]
    assert [one.value for one in at_two.values()] == [one.value for one in listed.values()]
    assert at_two["word_precision@2"].value == pytest.approx(0.25)  # cat 1 of 2, dog never said
    assert at_two["word_f1@2"].note == "the words: cat, dog"


def test_means_over_frequent_words_have_no_score_of_one_image_and_so_no_t_test():
    references, captions = [[["a", "cat"]], [["a", "dog"]]], [["cat"], ["a", "cat"]]
    ours = frequent_word_measures(["cat", "dog"], references, captions)
    theirs = frequent_word_measures(["cat", "dog"], references, [["dog"], ["dog"]])
    for name, measure in ours.items():
        pair = average([measure, measure]), average([theirs[name]] * 2)
        found = compare_drawn(*pair, *resample(pair, resamples=20))
        assert math.isnan(found.p_t_test)
        assert found.images == 0
        assert not math.isnan(found.p_bootstrap)


def test_cutoffs_are_found_in_the_registry_and_stand_behind():
    names = ["word_f1@10", "word_precision@10", "CIDEr", "word_f1@5", "word_f1"]
    assert in_order(names) == ["CIDEr", "word_f1", "word_f1@5", "word_precision@10", "word_f1@10"]
    assert metric("word_f1@10") is metric("word_f1")


def test_csv_of_scores_can_be_read_back(tables):
    lines = list(csv.DictReader(io.StringIO(as_csv(tables.captions))))
    assert [line["metric"] for line in lines[:3]] == ["CIDEr", "CIDEr", "CHAIR-i"]
    assert float(lines[0]["value"]) == pytest.approx(tables.captions[0]["value"], rel=1e-5)
