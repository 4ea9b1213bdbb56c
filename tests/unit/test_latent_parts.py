"""Masks, replacements, linear models and objects, against counting, a library or a slow twin."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm

from capscope.errors import CapscopeError
from capscope.explain.latent.masks import drawn, of_any_size, of_lists, subsets, up_to_pairs
from capscope.explain.latent.objects import (
    by_class,
    by_mask,
    by_overlap,
    match_objects,
    named_finder,
    objects_of_tags,
)
from capscope.explain.latent.published import variant_masks
from capscope.explain.latent.replacement import (
    BoundedNoise,
    Constant,
    RejectionNoise,
    bounds_of,
    replacement,
)
from capscope.explain.latent.surrogate import fit, kernel_weights


def positions(masks: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(row.nonzero().flatten().tolist()) for row in masks]


def test_masks_are_what_itertools_counts() -> None:
    expected = [c for size in range(3) for c in combinations(range(6), size)]
    assert positions(up_to_pairs(6)) == expected
    assert positions(of_lists(expected, 6)) == expected
    groups = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]).bool()
    members = positions(groups)
    chosen = [c for size in range(4) for c in combinations(range(3), size)]
    expected = [tuple(i for one in c for i in members[one]) for c in chosen]
    assert positions(subsets(groups)) == expected


def test_drawn_masks_have_their_size_and_repeat_with_their_seed() -> None:
    masks = drawn(36, 5, 200, seed=4)
    assert (masks.sum(1) == 5).all()
    assert torch.equal(masks, drawn(36, 5, 200, seed=4))
    assert not torch.equal(masks, drawn(36, 5, 200, seed=5))
    shares = masks.float().mean(0)
    assert float((shares - 5 / 36).abs().max()) < 0.1
    whole = of_any_size(4, 16, seed=1)
    assert sorted(positions(whole)) == sorted(
        c for size in range(5) for c in combinations(range(4), size)
    )
    some = of_any_size(20, 400, seed=1)
    assert not some[0].any()
    assert some[1:].any(1).all()
    assert set(some[1:].sum(1).tolist()) == set(range(1, 21))


def test_masks_that_an_image_has_no_features_for_are_refused() -> None:
    for size in (0, 9):
        with pytest.raises(CapscopeError, match="choose a number from 1 to 8"):
            drawn(8, size, 3, 0)
    with pytest.raises(CapscopeError, match="names feature 8"):
        of_lists([[8]], 8)
    with pytest.raises(CapscopeError, match="draw masks"):
        up_to_pairs(400)
    with pytest.raises(CapscopeError, match="take fewer"):
        subsets(torch.eye(15).bool())
    with pytest.raises(CapscopeError, match="another detector"):
        by_class([1] * 9, 8)
    assert variant_masks("lime_5obj", 8, [1, 2, 3, 4]) is None


def test_replacements_change_the_perturbed_features_alone() -> None:
    torch.manual_seed(0)
    features = torch.rand(3, 5, 4)
    masks = drawn(5, 2, 3, 1)
    low, high = bounds_of(features)
    for replace in (
        Constant(16.4),
        Constant(features[0].mean(0)),
        BoundedNoise(1.5, low, high, 1),
        RejectionNoise(1.5, low, high, np.random.RandomState(1)),
    ):
        found = replace(features, masks)
        assert torch.equal(found[~masks], features[~masks])
        assert (found[masks] != features[masks]).any()
    assert torch.equal(Constant(0.0)(features, masks)[masks], torch.zeros(6, 4))
    with pytest.raises(CapscopeError, match="there are: zero, minimum"):
        replacement("nothing", features[0], sigma=1, seed=1)


@pytest.mark.parametrize("kind", ["rejection", "bounded"])
def test_noise_has_the_truncated_normal_distribution(kind: str) -> None:
    low, high = torch.tensor([-0.5]), torch.tensor([2.0])
    features = torch.full((4000, 1, 1), 0.3)
    masks = torch.ones(4000, 1, dtype=torch.bool)
    noise = (
        BoundedNoise(1.5, low, high, 3)
        if kind == "bounded"
        else RejectionNoise(1.5, low, high, np.random.RandomState(3))
    )
    found = noise(features, masks).flatten().numpy()
    assert found.min() >= -0.5
    assert found.max() <= 2.0
    expected = truncnorm((-0.5 - 0.3) / 1.5, (2.0 - 0.3) / 1.5, loc=0.3, scale=1.5)
    assert kstest(found, expected.cdf).pvalue > 0.01


def test_values_far_outside_their_bounds() -> None:
    low, high = torch.tensor([0.0]), torch.tensor([1.0])
    far, mask = torch.full((1, 1, 1), 100.0), torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(CapscopeError, match="measure the bounds"):
        RejectionNoise(1.5, low, high, np.random.RandomState(0))(far, mask)
    assert 0 <= float(BoundedNoise(1.5, low, high, 0)(far, mask)) <= 1
    flat = torch.tensor([0.5])
    equal = RejectionNoise(1.5, flat, flat, np.random.RandomState(0))
    assert float(equal(torch.full((1, 1, 1), 0.5), mask)) == 0.5


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = (generator.random((80, 7)) < 0.6).astype(float)
    y = x @ generator.normal(size=(7, 3)) + 0.1 * generator.normal(size=(80, 3)) + 4
    return x, y, generator.random(80) + 0.1


def test_ridge_is_least_squares_with_rows_for_the_penalty() -> None:
    x, y, weights = data()
    found = fit(x, y, weights, alpha=0.7)
    root = np.sqrt(weights)[:, None]
    design = np.vstack([np.hstack([x, np.ones((80, 1))]) * root, np.eye(7, 8) * np.sqrt(0.7)])
    target = np.vstack([y * root, np.zeros((7, 3))])
    expected, *_ = np.linalg.lstsq(design, target, rcond=None)
    np.testing.assert_allclose(found.coefficients, expected[:7].T, atol=1e-10)
    np.testing.assert_allclose(found.intercepts, expected[7], atol=1e-10)
    residual = y - x @ expected[:7] - expected[7]
    centred = y - weights @ y / weights.sum()
    r2 = 1 - (weights @ residual**2) / (weights @ centred**2)
    np.testing.assert_allclose(found.r2, r2, atol=1e-10)


def test_lasso_fulfils_the_conditions_of_its_minimum() -> None:
    x, y, weights = data()
    alpha = 0.05
    found = fit(x, y, weights, regression="lasso", alpha=alpha)
    for target in range(3):
        b = found.coefficients[target]
        residual = y[:, target] - x @ b - found.intercepts[target]
        pull = x.T @ (weights * residual) / weights.sum()
        assert (np.abs(pull) <= alpha + 1e-8).all()
        chosen = b != 0
        np.testing.assert_allclose(pull[chosen], alpha * np.sign(b[chosen]), atol=1e-8)
        assert abs(weights @ residual) < 1e-8
    assert (fit(x, y, weights, regression="lasso", alpha=100.0).coefficients == 0).all()


@pytest.mark.parametrize("selection", ["largest", "forward"])
def test_selection_finds_the_features_that_matter(selection: str) -> None:
    x, _, weights = data()
    y = np.stack([5 * x[:, 2] - 3 * x[:, 5], 2 * x[:, 0] + 4 * x[:, 6]], 1)
    found = fit(x, y, weights, alpha=1e-9, selection=selection, selected=2)
    expected = np.zeros((2, 7))
    expected[0, [2, 5]], expected[1, [0, 6]] = (5, -3), (2, 4)
    np.testing.assert_allclose(found.coefficients, expected, atol=1e-6)


def test_kernels_count_what_is_left() -> None:
    kept = np.array([[1.0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    cosine = np.array([1, np.sqrt(0.5), 0.5, 0])
    np.testing.assert_allclose(kernel_weights(kept, "cosine", 1), cosine)
    expected = np.exp(-((1 - cosine) ** 2) / (2 * 0.25**2))
    np.testing.assert_allclose(kernel_weights(kept, "exponential", 0.25), expected)
    assert (kernel_weights(kept, "none", 1) == 1).all()


def test_objects_by_class_overlap_and_mask() -> None:
    assert {k: positions(v[None])[0] for k, v in by_class([7, 3, 7], 4).items()} == {
        3: (1,),
        7: (0, 2),
    }
    boxes = torch.tensor(
        [[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1], [0, 0, 0.4, 0.35], [0.55, 0.5, 1, 1], [0, 0, 0, 0]]
    )
    assert positions(by_overlap(boxes)) == [(0, 2), (1, 3), (4,)]
    covered = torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.2, 0.6]])
    assert positions(by_mask(covered)) == [(0,), (2,)]
    assert by_mask(torch.zeros(0, 3)).shape == (0, 3)


def test_objects_of_captions_with_and_without_a_tagger() -> None:
    tagged = [("a", "DT"), ("hot", "NN"), ("dog", "NN"), ("stand", "NN"), ("cars", "NNS")]
    assert objects_of_tags(tagged) == ["hot dog", "stand", "cars"]
    york = [("New", "NNP"), ("York", "NNP"), ("bus", "NN")]
    assert objects_of_tags(york) == ["New York", "bus"]
    assert objects_of_tags([("red", "JJ")]) == []
    find = named_finder(["dog", "hot dog", "stop sign"])
    assert find("a hot dog and a dog at a stop sign") == ["hot dog", "dog", "stop sign"]
    assert find("nothing here") == []
    matches = match_objects(["dog", "cat", "bird"], [2, 0, 0], ["dog", "cat", "cow"])
    assert [(one.class_id, one.reference) for one in matches] == [(0, 1), (1, None), (None, None)]
