"""Intervals and paired comparisons by resampling images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from capscope.metrics.comparison import compare_drawn, compare_pairs, paired_t_test
from capscope.metrics.statistics import Measure, average, mean, percentiles, ratio, resample

VALUES = np.random.default_rng(3).normal(0.5, 0.2, 400)


def interval(measure, **options):
    return percentiles(resample([measure], **options)[0])


def compare(first, second, **options):
    return compare_drawn(first, second, *resample([first, second], **options))


def test_a_mean_and_a_ratio_are_formulas_of_sums():
    assert mean(VALUES).value == pytest.approx(VALUES.mean())
    np.testing.assert_allclose(mean(VALUES).per_image, VALUES)
    measure = ratio(np.array([1.0, 0.0, 0.0]), np.array([2.0, 1.0, 0.0]))
    assert measure.value == pytest.approx(1 / 3)
    assert measure.count == 3
    np.testing.assert_array_equal(measure.per_image, [0.5, 0.0, np.nan])


def test_the_interval_of_a_mean_is_that_of_resampling_one_by_one():
    rng = np.random.default_rng(0)
    slow = [VALUES[rng.integers(0, 400, 400)].mean() for _ in range(2000)]
    expected = np.quantile(slow, [0.025, 0.975])
    np.testing.assert_allclose(interval(mean(VALUES), resamples=2000), expected, atol=0.004)


def test_the_same_seed_gives_the_same_interval():
    assert interval(mean(VALUES), seed=5) == interval(mean(VALUES), seed=5)
    assert interval(mean(VALUES), seed=5) != interval(mean(VALUES), seed=6)


def test_an_undefined_measure_has_an_undefined_interval():
    empty = ratio(np.zeros(4), np.zeros(4))
    assert np.isnan(empty.value)
    assert np.isnan(interval(empty)).all()
    assert np.isnan(interval(mean(np.zeros(0)))).all()


def test_a_paired_comparison_sees_a_small_difference_that_intervals_hide():
    better = mean(VALUES + 0.01 + 0.02 * np.sin(np.arange(400)))
    compared = compare(better, mean(VALUES))
    assert compared.low > 0
    assert compared.p_bootstrap < 0.05
    assert compared.p_t_test < 0.05
    assert interval(better)[0] < mean(VALUES).value
    mirrored = compare(mean(VALUES), better)
    assert mirrored.difference == pytest.approx(-compared.difference)
    assert mirrored.t == pytest.approx(-compared.t)


def test_two_equal_systems_do_not_differ():
    same = compare(mean(VALUES), mean(VALUES))
    assert (same.difference, same.low, same.high, same.p_bootstrap) == (0.0, 0.0, 0.0, 1.0)
    assert np.isnan([same.t, same.p_t_test]).all()
    assert same.images == 400


def test_p_values_of_a_paired_comparison_are_rarely_small_without_a_difference():
    rng = np.random.default_rng(5)
    small = [
        compare(mean(rng.normal(size=60)), mean(rng.normal(size=60)), resamples=200)
        for _ in range(200)
    ]
    for name in ("p_bootstrap", "p_t_test"):
        share = np.mean([getattr(one, name) < 0.05 for one in small])
        assert 0.01 <= share <= 0.11


@pytest.mark.parametrize("missing", [0, 7])
def test_the_paired_t_test_is_that_of_scipy(missing):
    rng = np.random.default_rng(1)
    first, second = VALUES.copy(), VALUES + rng.normal(0.005, 0.05, 400)
    first[:missing] = np.nan
    t, p, images = paired_t_test(first, second)
    expected = ttest_rel(first, second, nan_policy="omit")
    assert (t, p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)
    assert images == 400 - missing


def test_a_t_test_of_too_little_is_undefined():
    for values in ([], [1.0], [2.0, 2.0]):
        t, p, images = paired_t_test(np.array(values), np.array(values))
        assert np.isnan([t, p]).all()
        assert images == len(values)
    assert paired_t_test(np.array([1.0, 2.0]), np.array([0.0, 1.0]))[:2] == (np.inf, 0.0)


def test_the_same_images_are_drawn_for_all_measures():
    drawn = resample([mean(VALUES), mean(VALUES + 1), ratio(VALUES, np.ones(400))], resamples=150)
    np.testing.assert_allclose(drawn[1] - drawn[0], 1)
    np.testing.assert_allclose(drawn[0], drawn[2])
    assert drawn[0].shape == (150,)


def test_measures_of_different_images_cannot_be_compared():
    with pytest.raises(ValueError, match="3 images against 400"):
        compare(mean(VALUES[:3]), mean(VALUES))


def test_an_average_of_rounds_leaves_undefined_rounds_out():
    rounds = [
        ratio(np.array([1.0, 0.0]), np.array([1.0, 0.0]), chance=0.5),
        ratio(np.array([0.0, 0.0]), np.array([2.0, 0.0])),
    ]
    together = average(rounds)
    assert together.value == 0.5
    assert (together.count, together.chance) == (3, 0.5)
    np.testing.assert_array_equal(together.per_image, [0.5, np.nan])


def test_a_nonlinear_formula_is_resampled_as_a_whole():
    squares = Measure(np.ones((10, 1)), lambda sums: sums[..., 0] ** 2, 10)
    assert squares.value == 100
    assert interval(squares) == (100, 100)


def test_many_pairs_at_once_are_compared_as_one_by_one():
    rng = np.random.default_rng(8)
    wholes = rng.integers(0, 3, (5, 12)).astype(float)
    parts = np.minimum(wholes, rng.integers(0, 3, (5, 12)))
    wholes[3], parts[3] = 0, 0  # of which nothing is known
    parts[4], wholes[4] = parts[2], wholes[2]
    measures = [ratio(part, whole) for part, whole in zip(parts, wholes, strict=True)]
    drawn = resample(measures, resamples=300, seed=2)
    first, second = np.triu_indices(len(measures), 1)
    found = compare_pairs(measures, drawn, first, second)
    for pair, (i, k) in enumerate(zip(first, second, strict=True)):
        one = compare_drawn(measures[i], measures[k], drawn[i], drawn[k])
        for name, value in vars(one).items():
            assert getattr(found, name)[pair] == pytest.approx(value, nan_ok=True), (i, k, name)


def test_equal_differences_are_certain_in_many_pairs_too():
    same = [mean(VALUES), mean(VALUES)]
    found = compare_pairs(same, resample(same, resamples=20), np.array([0]), np.array([1]))
    assert np.isnan(found.t[0])
    halves = [mean(np.zeros(4)), mean(np.full(4, 0.5))]
    found = compare_pairs(halves, resample(halves, resamples=20), np.array([0]), np.array([1]))
    assert (found.t[0], found.p_t_test[0]) == (-np.inf, 0.0)
