"""The engine on whole captioners: against the closed recursion, autograd and itself."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.captioner import SumCaptioner
from capscope.relevance import backward, operations
from capscope.relevance.backward import word_relevance
from capscope.relevance.functions import Passing
from capscope.relevance.recursion import Trace
from capscope.relevance.recursion_adaptive import adaptive_lrp
from capscope.relevance.recursion_aoa import aoa_lrp
from capscope.relevance.recursion_gridtd import gridtd_lrp
from capscope.relevance.rules import (
    GRADIENT,
    GRADIENT_AS_PUBLISHED,
    GRADIENT_X_INPUT,
    LRP,
    LRP_AS_PUBLISHED,
    Rules,
)

ALL_RULES = [LRP, LRP_AS_PUBLISHED, GRADIENT, GRADIENT_X_INPUT, GRADIENT_AS_PUBLISHED]
TWINS: dict[str, Callable[..., list[list[Trace]]]] = {
    "gridtd": gridtd_lrp,
    "adaptive": adaptive_lrp,
    "aoa": aoa_lrp,
}
CONFIGS = {
    "gridtd, features": {"attention": 3},
    "gridtd, projected": {"attention": 3, "global_from": "projected"},
    "adaptive, features": {"attention": 3},
    "adaptive, projected": {"attention": 3, "global_from": "projected"},
    "aoa, one head": {"heads": 1},
    "aoa, three heads": {"heads": 3},
}
HEADS = 3


def captioner(kind: str = "gridtd, features", seed: int = 0) -> SumCaptioner:
    torch.manual_seed(seed)
    name = kind.split(",")[0]
    model = build(name, vocabulary_size=11, feature_size=7, embedding=4, hidden=6, **CONFIGS[kind])
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1.0, 1.0)
    if name != "aoa":  # otherwise the rectified global feature can be all zero
        torch.nn.init.constant_(model.global_projection.bias, 2.0)
    assert isinstance(model, SumCaptioner)
    return model.double().eval()


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> SumCaptioner:
    return captioner(request.param)


def twin(model: SumCaptioner) -> Callable[..., list[list[Trace]]]:
    return TWINS[type(model).__name__.lower()]


def batch(size: int = 3, steps: int = 4, padded: bool = False) -> tuple[Features, Tensor]:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randn(size, 6, 7, dtype=torch.float64, generator=generator)
    word_ids = torch.randint(0, 11, (size, steps + 1), generator=generator)
    valid = torch.arange(6).expand(size, 6) < 4 if padded else None
    return Features(cells, valid=valid), word_ids


@pytest.mark.parametrize("published", [False, True], ids=["right", "as published"])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_lrp_equals_the_closed_recursion(
    model: SumCaptioner, padded: bool, published: bool
) -> None:
    features, word_ids = batch(padded=padded)
    found = word_relevance(model, features, word_ids, LRP_AS_PUBLISHED if published else LRP)
    for b, traces in enumerate(twin(model)(model, features, word_ids, published=published)):
        for t, trace in enumerate(traces):
            torch.testing.assert_close(found.features[b, t], trace.features)
            torch.testing.assert_close(found.words[b, t, : t + 1], trace.words.sum(1))
            assert torch.equal(found.words[b, t, t + 1 :], torch.zeros(3 - t).double())
            assert float(found.logits[b, t]) == pytest.approx(trace.logit)
            assert float(found.absorbed[b, t]) == pytest.approx(sum(trace.shares.values()))


@pytest.mark.parametrize("published", [False, True], ids=["right", "as published"])
def test_the_shares_of_the_recursion_sum_to_the_logit(model: SumCaptioner, published: bool) -> None:
    features, word_ids = batch()
    for traces in twin(model)(model, features, word_ids, published=published):
        for trace in traces:
            assert trace.total() == pytest.approx(trace.logit)
            assert trace.shares["discarded"] != 0 if published and len(trace.words) > 1 else True


@pytest.mark.parametrize("head", range(HEADS))
def test_one_head_equals_the_closed_recursion(head: int) -> None:
    model = captioner("aoa, three heads")
    features, word_ids = batch()
    found = word_relevance(model, features, word_ids, replace(LRP, head=head))
    for b, traces in enumerate(aoa_lrp(model, features, word_ids, head=head)):
        for t, trace in enumerate(traces):
            torch.testing.assert_close(found.features[b, t], trace.features)
            assert trace.total() == pytest.approx(trace.logit)


@pytest.mark.parametrize("rules", [LRP, GRADIENT])
def test_a_head_that_does_not_exist_is_refused(rules: Rules) -> None:
    with pytest.raises(CapscopeError, match="head 3 does not exist: this captioner has 3 heads"):
        word_relevance(captioner("aoa, three heads"), *batch(), replace(rules, head=3))


def test_without_biases_and_stabiliser_relevance_is_conserved(model: SumCaptioner) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.zero_()
    found = word_relevance(model, *batch(), replace(LRP, epsilon=0.0))
    assert found.logits.abs().min() > 1e-3
    torch.testing.assert_close(found.absorbed, torch.zeros_like(found.absorbed), rtol=0, atol=1e-9)


def test_gradient_rules_are_ordinary_back_propagation(model: SumCaptioner) -> None:
    features, word_ids = batch()
    found = word_relevance(model, features, word_ids, GRADIENT)
    times_input = word_relevance(model, features, word_ids, GRADIENT_X_INPUT)
    cells = features.cells.clone().requires_grad_()
    logits = model.readout(model.hidden(Features(cells), word_ids[:, :-1]).values)
    for t in range(word_ids.shape[1] - 1):
        picked = logits[:, t].gather(1, word_ids[:, t + 1 : t + 2]).sum()
        (gradient,) = torch.autograd.grad(picked, cells, retain_graph=True)
        torch.testing.assert_close(found.features[:, t], gradient)
        torch.testing.assert_close(times_input.features[:, t], gradient * features.cells)


def test_word_gradients_are_ordinary_back_propagation(model: SumCaptioner) -> None:
    features, word_ids = batch(size=1)
    word_ids = torch.tensor([[1, 2, 3, 4, 5]])  # no word twice: rows of the table are positions
    found = word_relevance(model, features, word_ids, GRADIENT)
    logits = model.readout(model.hidden(features, word_ids[:, :-1]).values)
    for t in range(4):
        (gradient,) = torch.autograd.grad(
            logits[0, t, word_ids[0, t + 1]], model.embedding.weight, retain_graph=True
        )
        torch.testing.assert_close(found.words[0, t], gradient[word_ids[0, :-1]].sum(1))


@pytest.mark.parametrize("rules", ALL_RULES)
def test_relevance_mode_keeps_every_bit_of_the_forward_pass(
    model: SumCaptioner, rules: Rules
) -> None:
    model = model.float()
    features, word_ids = batch()
    features = Features(features.cells.float())
    plain = model.hidden(features, word_ids[:, :-1])
    picked = model.readout(plain.values, word_ids[:, 1:])
    found = word_relevance(model, features, word_ids, rules)
    assert torch.equal(found.logits, picked)
    assert plain.attention is not None
    assert torch.equal(found.attention, plain.attention)


@pytest.mark.parametrize("rules", ALL_RULES)
def test_a_batch_gives_what_each_caption_gives_alone(model: SumCaptioner, rules: Rules) -> None:
    features, word_ids = batch()
    together = word_relevance(model, features, word_ids, rules)
    for row in range(3):
        alone = word_relevance(
            model, features.select(slice(row, row + 1)), word_ids[row : row + 1], rules
        )
        for one, all_rows in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_rows[row])


def test_a_word_does_not_depend_on_what_follows_it(model: SumCaptioner) -> None:
    features, word_ids = batch()
    longer = word_relevance(model, features, word_ids, LRP)
    shorter = word_relevance(model, features, word_ids[:, :3], LRP)
    torch.testing.assert_close(longer.features[:, :2], shorter.features)
    torch.testing.assert_close(longer.words[:, :2, :2], shorter.words)


def test_portions_do_not_change_the_result(
    model: SumCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = word_relevance(model, *batch(), LRP)
    monkeypatch.setattr(backward, "STAGE_2_NUMBERS", 1)
    one_by_one = word_relevance(model, *batch(), LRP)
    torch.testing.assert_close(whole.features, one_by_one.features)


def test_explaining_leaves_model_and_features_as_they_were(model: SumCaptioner) -> None:
    model.train()
    features, word_ids = batch()
    first = word_relevance(model, features, word_ids, LRP)
    assert model.training
    assert not features.cells.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not first.features.requires_grad
    with torch.no_grad():
        second = word_relevance(model, features, word_ids, LRP)
    assert torch.equal(first.features, second.features)  # dropout is off, gradients are on


def test_operations_are_plain_again_after_an_error_inside_the_pass(model: SumCaptioner) -> None:
    features, word_ids = batch()
    with pytest.raises(IndexError):
        word_relevance(model, features, word_ids + 100, LRP)
    assert operations._current.get() is None
    assert not model.training


def test_single_precision_stays_near_double_precision(model: SumCaptioner) -> None:
    features, word_ids = batch()
    exact = word_relevance(model, features, word_ids, LRP).features
    single = word_relevance(model.float(), Features(features.cells.float()), word_ids, LRP).features
    assert (single - exact).abs().max() < 1e-4 * exact.abs().max()


def test_rows_at_which_nothing_arrives_are_passed_over_for_every_word_of_a_batch():
    torch.manual_seed(0)
    weight, arrived = torch.randn(4, 3), torch.randn(5, 2, 6, 4)
    arrived[:, :, 2] = 0
    x = torch.randn(2, 6, 3, requires_grad=True)
    z = Passing.apply(x, weight, None)
    assert torch.equal(z, x @ weight.T)

    def pull(one_word):
        return torch.autograd.grad(z, x, one_word, retain_graph=True)[0]

    torch.testing.assert_close(torch.vmap(pull)(arrived), arrived @ weight)
    torch.testing.assert_close(pull(arrived[0]), arrived[0] @ weight)
    assert not pull(torch.zeros(2, 6, 4)).any()
