"""Products by oneDNN against those of torch."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from capscope.relevance import operations as ops
from capscope.relevance import product as module
from capscope.relevance.alpha_beta import AlphaBeta, Matrix, Rows
from capscope.relevance.product import product
from capscope.relevance.rules import Rules


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 0)


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (1, 1, 7)])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_are_those_of_a_linear_layer(shape, biased):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(4, 7), torch.randn(4)
    inputs = [one.requires_grad_() for one in ([x, weight, bias] if biased else [x, weight])]
    found, expected = product(*inputs), functional.linear(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    by = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, by),
        torch.autograd.grad(expected, inputs, by),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_weight_may_be_transposed():
    x, weight = torch.randn(3, 5), torch.randn(5, 6)
    torch.testing.assert_close(product(x, weight.T), x @ weight, rtol=1e-5, atol=1e-5)


def test_double_precision_and_small_products_are_those_of_torch_to_the_bit(monkeypatch):
    x, weight = torch.randn(3, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    assert torch.equal(product(x, weight), functional.linear(x, weight))
    monkeypatch.setattr(module, "SMALLEST", 3 * 5 * 6 + 1)
    x, weight = x.float(), weight.float()
    assert torch.equal(product(x, weight), functional.linear(x, weight))


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_relevance_by_alpha_beta_rules_takes_it_to_rounding(nonnegative, alpha):
    torch.manual_seed(1)
    layer, x, r = nn.Linear(7, 4), torch.randn(2, 3, 7), torch.randn(2, 6, 4)
    x, rows = x.abs() if nonnegative else x, Rows.all(2, 3)
    found = Matrix(layer, AlphaBeta(alpha))(x.double(), nonnegative).back(r, rows)
    exact = AlphaBeta(alpha, carried=torch.float64)
    right = Matrix(layer, exact)(x.double(), nonnegative).back(r.double(), rows)
    assert float((found - right).abs().max()) < 1e-5 * float(right.abs().max())


def test_nothing_goes_wrong_under_automatic_precision():
    x, weight = torch.randn(3, 5), torch.randn(6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(x, weight).dtype == torch.bfloat16


def test_only_plain_operations_within_the_context_take_it(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "product", lambda *given: calls.append(1) or product(*given))
    layer, x = nn.Linear(7, 4), torch.randn(5, 7)
    with module.fastest_products():
        torch.testing.assert_close(ops.linear(layer, x), layer(x), rtol=1e-5, atol=1e-5)
        assert len(calls) == 1
        with ops.relevance_mode(Rules()):
            assert torch.equal(ops.linear(layer, x), layer(x))
    assert torch.equal(ops.linear(layer, x), layer(x))
    assert len(calls) == 1
