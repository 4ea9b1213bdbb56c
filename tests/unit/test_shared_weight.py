"""One product for the gradient of a weight that many steps share, against plain autograd."""

import contextlib

import pytest
import torch
from torch.nn import functional

from capscope.features.visual import Features
from capscope.models import build
from capscope.models.layers.recurrent import LSTM
from capscope.models.layers.shared_weight import SharedWeight


def steps(multiply, x):
    """Five steps of a small recurrence, of which two are not used."""
    outputs = []
    for _ in range(5):
        x = torch.tanh(multiply(x))
        outputs.append(x)
    return outputs[2].pow(2).sum() + outputs[1].sum()


def test_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    weight = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(steps(lambda x: functional.linear(x, weight), x), [weight, x])
    found = torch.autograd.grad(steps(SharedWeight(weight), x), [weight, x])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_each_image_may_have_a_matrix_of_its_own():
    torch.manual_seed(0)
    weight = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(steps(lambda x: x @ weight.mT, x), [weight, x])
    found = torch.autograd.grad(steps(SharedWeight(weight), x), [weight, x])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_graph_can_go_back_twice():
    weight = torch.randn(4, 4, requires_grad=True)
    loss = steps(SharedWeight(weight), torch.randn(2, 4))
    first = torch.autograd.grad(loss, weight, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, weight)[0], first)


def test_inputs_get_their_gradient_where_the_weight_asks_for_none():
    weight, x = torch.randn(4, 4), torch.randn(2, 4, requires_grad=True)
    expected = torch.autograd.grad(steps(lambda x: functional.linear(x, weight), x), x)[0]
    found = torch.autograd.grad(steps(SharedWeight(weight), x), x)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["gridtd", "adaptive", "aoa"])
def test_captioners_have_the_gradients_of_single_steps(name, monkeypatch):
    torch.manual_seed(1)
    size = {"heads": 2} if name == "aoa" else {"attention": 6}
    captioner = build(name, vocabulary_size=11, feature_size=5, embedding=6, hidden=8, **size)
    captioner = captioner.double().eval()
    features = Features(torch.randn(3, 4, 5, dtype=torch.float64))
    word_ids = torch.randint(0, 11, (3, 7))

    def gradients():
        captioner.zero_grad()
        captioner.readout(captioner.hidden(features, word_ids).values).pow(2).sum().backward()
        return {name: parameter.grad.clone() for name, parameter in captioner.named_parameters()}

    found = gradients()
    monkeypatch.setattr(LSTM, "over_steps", lambda self: contextlib.nullcontext())
    for parameter, expected in gradients().items():
        torch.testing.assert_close(found[parameter], expected)
