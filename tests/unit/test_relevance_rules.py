"""Every rule of the engine against its slow twin, in double precision."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from capscope.relevance import operations as ops
from capscope.relevance import reference
from capscope.relevance.rules import GRADIENT, GUIDED, LRP, Rules

EPSILON = LRP.epsilon
PASS = replace(LRP, activation="pass", rectifier="pass")
TABLE = nn.Linear(6, 5, dtype=torch.float64)
NORM = nn.LayerNorm(6, dtype=torch.float64)
nn.init.normal_(NORM.weight)
nn.init.normal_(NORM.bias)
IDS = torch.tensor([3])
ALPHA = torch.tensor([[0.2, 0.0, 0.7, 0.1]], dtype=torch.float64)
VALID = torch.tensor([[True, True, False, True]])
TWO_HEADS = torch.tensor([[[[0.2, 0.0, 0.7, 0.1], [0.5, 0.1, 0.1, 0.3]]]], dtype=torch.float64)
GATE = nn.Linear(6, 5, dtype=torch.float64)
OPENER = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
GATES = torch.tensor([-1.0, 0.0, 2.0, 0.3, 5.0], dtype=torch.float64).sigmoid()
WEIGHT = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


class Case(NamedTuple):
    """An operation on tensors, and the relevance of its inputs as its twin has it."""

    name: str
    rules: Rules
    shapes: Sequence[tuple[int, ...]]
    operation: Callable[..., Tensor]
    twin: Callable[..., Sequence[Tensor]]


def linear_twin(r: Tensor, x: Tensor) -> list[Tensor]:
    z = TABLE.weight @ x + TABLE.bias
    return [reference.weighted_sum(x, TABLE.weight, z, r, EPSILON)]


def selected_twin(r: Tensor, x: Tensor) -> list[Tensor]:
    weight, bias = TABLE.weight[IDS], TABLE.bias[IDS]
    return [reference.weighted_sum(x[0], weight, weight @ x[0] + bias, r, EPSILON).unsqueeze(0)]


def valid_mean_twin(r: Tensor, x: Tensor) -> list[Tensor]:
    found = torch.zeros_like(x)
    found[VALID] = reference.mean(x[VALID], r[0], EPSILON)
    return [found]


def heads_twin(r: Tensor, values: Tensor, heads: tuple[int, ...]) -> Tensor:
    """Each head is an attention of its own over its columns."""
    found = torch.zeros_like(values)
    for head in heads:
        columns = slice(3 * head, 3 * head + 3)
        found[:, columns] = reference.context(
            TWO_HEADS[0, 0, head], values[:, columns], r[columns], EPSILON
        )
    return found


def biasless_twin(r: Tensor, x: Tensor) -> list[Tensor]:
    return [reference.weighted_sum(x, TABLE.weight, TABLE.weight @ x, r, EPSILON)]


def candidate_twin(r: Tensor, x: Tensor) -> list[Tensor]:
    """Relevance through the third of four gate blocks alone, of what is in them."""
    return [x * (WEIGHT[4:6].t() @ (r[4:6] / (WEIGHT @ x)[4:6]))]


def normalisation_twin(r: Tensor, x: Tensor) -> list[Tensor]:
    return [reference.normalisation(x, NORM.weight, NORM.bias, r, EPSILON, NORM.eps)]


def jacobian_twin(operation: Callable[[Tensor], Tensor]) -> Callable[..., list[Tensor]]:
    def twin(r: Tensor, x: Tensor) -> list[Tensor]:
        return [x * reference.derivative(operation, x, r / operation(x))]

    return twin


def same(r: Tensor, x: Tensor) -> list[Tensor]:
    return [r]


CASES = [
    Case("linear, epsilon", LRP, [(6,)], lambda x: ops.linear(TABLE, x), linear_twin),
    Case(
        "linear, derivative",
        GRADIENT,
        [(6,)],
        lambda x: ops.linear(TABLE, x),
        jacobian_twin(lambda x: TABLE.weight @ x + TABLE.bias),
    ),
    Case(
        "one output of a linear layer, epsilon",
        LRP,
        [(1, 6)],
        lambda x: ops.selected_linear(TABLE, x, IDS),
        selected_twin,
    ),
    Case(
        "addition, epsilon",
        LRP,
        [(5,), (5,), (5,)],
        ops.add,
        lambda r, *x: reference.addition(list(x), r, EPSILON),
    ),
    Case(
        "mean, epsilon",
        LRP,
        [(1, 4, 3)],
        ops.mean,
        lambda r, x: [reference.mean(x[0], r[0], EPSILON).unsqueeze(0)],
    ),
    Case(
        "mean of the valid, epsilon",
        LRP,
        [(1, 4, 3)],
        lambda x: ops.mean(x, VALID),
        valid_mean_twin,
    ),
    Case(
        "attention, constant weights",
        LRP,
        [(1, 4, 3)],
        lambda x: ops.attend(ALPHA.unsqueeze(0), x),
        lambda r, x: [reference.context(ALPHA[0], x[0], r[0, 0], EPSILON).unsqueeze(0)],
    ),
    Case(
        "attention of two heads, constant weights",
        LRP,
        [(1, 4, 6)],
        lambda x: ops.attend(TWO_HEADS, x),
        lambda r, x: [heads_twin(r[0, 0], x[0], (0, 1)).unsqueeze(0)],
    ),
    Case(
        "attention of two heads, one explained",
        replace(LRP, head=1),
        [(1, 4, 6)],
        lambda x: ops.attend(TWO_HEADS, x),
        lambda r, x: [heads_twin(r[0, 0], x[0], (1,)).unsqueeze(0)],
    ),
    Case(
        "gated linear unit, constant gate",
        LRP,
        [(6,)],
        lambda x: ops.gated_linear(TABLE, x, GATE, OPENER),
        lambda r, x: linear_twin(r, x),
    ),
    Case(
        "linear, divided without its bias",
        replace(LRP, divisors=frozenset({"this one"})),
        [(6,)],
        lambda x: ops.linear(TABLE, x, "this one"),
        biasless_twin,
    ),
    Case(
        "another linear layer is divided as usual",
        replace(LRP, divisors=frozenset({"this one"})),
        [(6,)],
        lambda x: ops.linear(TABLE, x, "that one"),
        linear_twin,
    ),
    Case(
        "candidate, divided before tanh",
        LRP,
        [(5,)],
        ops.candidate,
        lambda r, x: [x * r / reference.stabilised(x, EPSILON)],
    ),
    Case(
        "candidate, divided after tanh",
        replace(LRP, divisors=frozenset({"this one"})),
        [(5,)],
        lambda x: ops.candidate(x, "this one"),
        lambda r, x: [x * r / reference.stabilised(torch.tanh(x), EPSILON)],
    ),
    Case(
        "layer normalisation, epsilon",
        LRP,
        [(6,)],
        lambda x: ops.normalise(NORM, x),
        normalisation_twin,
    ),
    Case(
        "layer normalisation, derivative",
        GRADIENT,
        [(6,)],
        lambda x: ops.normalise(NORM, x),
        jacobian_twin(NORM),
    ),
    Case("product with a constant", LRP, [(5,)], lambda x: GATES * x, same),
    Case("tanh, secant", LRP, [(5,)], ops.tanh, same),
    Case("tanh, derivative", GRADIENT, [(5,)], ops.tanh, jacobian_twin(torch.tanh)),
    Case("tanh, pass", PASS, [(5,)], ops.tanh, lambda r, x: [x * r / torch.tanh(x)]),
    Case("rectifier, secant", LRP, [(5,)], ops.relu, same),
    Case("rectifier, guided", GUIDED, [(5,)], ops.relu, lambda r, x: [r.clamp(min=0)]),
    Case(
        "constant gates carry the candidate alone",
        LRP,
        [(6,)],
        lambda x: ops.affine(x, WEIGHT, None, 4),
        candidate_twin,
    ),
]


def relevance_of_inputs(case: Case, relevance: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    with ops.relevance_mode(case.rules):
        output = case.operation(*leaves)
    multipliers = torch.autograd.grad(output, leaves, relevance / output.detach())
    return [x * multiplier for x, multiplier in zip(inputs, multipliers, strict=True)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_rule_equals_its_twin(case: Case) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator) for s in case.shapes]
    if case.operation is ops.relu:
        inputs = [x.abs() for x in inputs]
    with torch.no_grad():
        output = case.operation(*inputs)
        relevance = torch.randn(output.shape, dtype=torch.float64, generator=generator)
        expected = case.twin(relevance, *inputs)
    found = relevance_of_inputs(case, relevance, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_relevance_mode_keeps_every_bit_of_the_forward_pass(case: Case) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator) for s in case.shapes]
    plain = case.operation(*inputs)
    with ops.relevance_mode(case.rules):
        assert torch.equal(case.operation(*(x.requires_grad_() for x in inputs)), plain)


def test_a_guided_rectifier_passes_positive_multipliers_where_it_is_open() -> None:
    z = torch.tensor([-1.0, 0.0, 1.0, 2.0], requires_grad=True)
    with ops.relevance_mode(GUIDED):
        activated = ops.relu(z)
    arriving = torch.tensor([1.0, 1.0, -3.0, 3.0])
    (multiplier,) = torch.autograd.grad(activated, z, arriving)
    assert multiplier.tolist() == [0.0, 0.0, 0.0, 3.0]


def test_zero_pre_activations_pass_no_relevance_and_no_nan() -> None:
    z = torch.zeros(3, requires_grad=True)
    for function, slope in ((ops.tanh, 1.0), (ops.relu, 0.0)):
        with ops.relevance_mode(LRP):
            activated = function(z)
        (multiplier,) = torch.autograd.grad(activated.sum(), z)
        assert torch.equal(multiplier, torch.full((3,), slope))
    terms = [torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 2.0])]
    leaf = terms[0].requires_grad_()
    with ops.relevance_mode(LRP):
        total = ops.add(leaf, terms[1])
    (multiplier,) = torch.autograd.grad(total.sum(), leaf)
    assert multiplier[0] == 0
    assert multiplier[1] == pytest.approx(4 / 4.01)


def test_without_a_stabiliser_sums_of_zero_pass_nothing_on() -> None:
    first = torch.tensor([1.0, 2.0], requires_grad=True)
    with ops.relevance_mode(replace(LRP, epsilon=0.0)):
        total = ops.add(first, torch.tensor([-1.0, 2.0]))
    (multiplier,) = torch.autograd.grad(total.sum(), first)
    assert torch.equal(multiplier, torch.tensor([0.0, 1.0]))


def test_the_denominator_follows_the_sign_and_never_vanishes() -> None:
    z = torch.tensor([2.0, -2.0, 0.0, -0.0])
    assert torch.equal(ops.denominator(z, 0.5), torch.tensor([2.5, -2.5, 0.5, 0.5]))
    assert torch.equal(reference.stabilised(z, 0.5), torch.tensor([2.5, -2.5, 0.5, 0.5]))


def test_relevance_mode_ends_with_its_block_and_nests() -> None:
    x = torch.ones(2, requires_grad=True)
    cut_everything = replace(LRP, cuts=frozenset({"a"}))
    with ops.relevance_mode(cut_everything):
        assert not ops.cut(x, "a").requires_grad
        assert ops.cut(x, "b") is x
        with ops.relevance_mode(LRP):
            assert ops.cut(x, "a") is x
        assert not ops.cut(x, "a").requires_grad
    assert ops.cut(x, "a") is x
    with pytest.raises(RuntimeError), ops.relevance_mode(cut_everything):
        raise RuntimeError
    assert ops.cut(x, "a") is x


@pytest.mark.parametrize(
    "rules", [LRP, replace(LRP, epsilon=0.0), PASS, GRADIENT, replace(LRP, linear="derivative")]
)
def test_a_rectified_sum_is_a_sum_and_a_rectifier_in_one(rules: Rules) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 6, dtype=torch.float64, generator=generator).requires_grad_()
    seed = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    with ops.relevance_mode(rules):
        together = ops.rectified_linear(TABLE, x)
        apart = ops.relu(ops.linear(TABLE, x))
    assert torch.equal(together, apart)
    (one,) = torch.autograd.grad(together, x, seed)
    (other,) = torch.autograd.grad(apart, x, seed)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
