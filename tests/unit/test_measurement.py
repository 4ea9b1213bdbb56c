"""Means over words with intervals over images, and the tidy table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from capscope.benchmarks.conservation import measure_conservation
from capscope.benchmarks.measurement import (
    Key,
    Measurement,
    Scores,
    write_measurements,
    write_sums,
)
from capscope.explain.explanation import Explanation
from capscope.explain.store import Captions, RelevanceStore, write_relevance

KEY = Key("lrp", "grid", "noun", "test", "hit")


def test_the_mean_is_over_words_and_the_interval_over_images() -> None:
    scores = Scores()
    for image_id, values in {1: [1, 1, 1, 1], 2: [0], 3: [1]}.items():
        for value in values:
            scores.add(KEY, image_id, value)
    (row,) = scores.measurements(resamples=2000, seed=1)
    assert row.value == pytest.approx(5 / 6)
    assert row.n == 6
    rng = np.random.default_rng(0)
    images = [np.ones(4), np.zeros(1), np.ones(1)]
    means = [np.concatenate([images[k] for k in rng.integers(0, 3, 3)]).mean() for _ in range(4000)]
    np.testing.assert_allclose([row.low, row.high], np.quantile(means, [0.025, 0.975]), atol=0.02)


def test_the_table_has_one_row_for_each_measurement(tmp_path: Path) -> None:
    row = Measurement(*KEY, 0.5, 0.25, 0.75, 8)
    write_measurements(tmp_path / "a.csv", [row])
    with (tmp_path / "a.csv").open() as stream:
        (found,) = csv.DictReader(stream)
    assert found == {
        "explainer": "lrp",
        "resolution": "grid",
        "word_kind": "noun",
        "split": "test",
        "measure": "hit",
        "value": "0.500000",
        "low": "0.250000",
        "high": "0.750000",
        "n": "8",
    }


def test_conservation_compares_what_was_sent_with_what_arrived(tmp_path: Path) -> None:
    account = {
        "start": torch.tensor([[4.0, -2.0]]),
        "grid": torch.tensor([[2.0, -1.0]]),
        "words": torch.tensor([[1.0, -1.0]]),
        "network": torch.tensor([[2.0, -1.0]]),
        "pixels": torch.tensor([[2.0, -0.5]]),
    }
    write_relevance(
        tmp_path,
        Captions.of([1], [[1, 2]]),
        [(np.array([0]), Explanation(torch.zeros(1, 2, 4), conservation=account))],
        map_size=4,
        attributes={"explainer": "lrp", "split": "test", "grid": (2, 2), "image_size": 8},
        params={},
        inputs={},
    )
    with RelevanceStore(tmp_path) as store:
        rows = measure_conservation([store], resamples=10, seed=1)
    found = {(row.resolution, row.measure): row.value for row in rows}
    assert found == {
        ("grid", "error"): pytest.approx(1 / 6),
        ("grid", "image share"): pytest.approx(3 / 5),
        ("pixels", "error"): pytest.approx(0.5 / 3),
    }


def test_sums_of_images_give_the_value_of_the_table(tmp_path: Path) -> None:
    """What paired tests read is what the means were made of; other measures are not kept."""
    key = Key("lrp", "pixels", "noun", "test", "hit")
    scores = Scores()
    for image_id, value in ((1, 1.0), (1, 0.0), (2, 1.0)):
        scores.add(key, image_id, value)
        scores.add(key._replace(word_kind="colour"), image_id, value)
    rows = scores.measurements(resamples=10, seed=1)
    write_sums(tmp_path / "a.csv", "ground_truth", rows)
    with (tmp_path / "a.csv").open() as stream:
        found = list(csv.DictReader(stream))
    assert [(row["image_id"], row["part"], row["whole"]) for row in found] == [
        ("1", "1.000000", "2.000000"),
        ("2", "1.000000", "1.000000"),
    ]
    assert {row["word_kind"] for row in found} == {"noun"}
    parts = sum(float(row["part"]) for row in found)
    assert parts / sum(float(row["whole"]) for row in found) == pytest.approx(rows[0].value)
