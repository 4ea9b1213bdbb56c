"""LRP of DIFNet where no fixture goes: batches, padding, masked cells, the encoder, the inputs."""

import pytest
import torch

from capscope.features.visual import Features
from capscope.models import build
from capscope.relevance import alpha_beta_reference as reference
from capscope.relevance.alpha_beta import AlphaBeta
from capscope.relevance.recursion_difnet import DIFNetLRP

EXACT = AlphaBeta(carried=torch.float64)
SIZES = {
    "vocabulary_size": 17,
    "feature_size": 6,
    "hidden": 8,
    "heads": 2,
    "feed_forward": 12,
    "padding": 1,
}


WIDE = {"hidden": 48, "feed_forward": 64, "feature_size": 60}
"""Wide enough for every output to have a product that excites it: without one, it loses all."""


def captioner(name="difnet", **options):
    torch.manual_seed(3)
    size = {"segment_size": 5} if name == "difnet" else {}
    model = build(name, **SIZES | size | options).double().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)):
        norm.weight.data += 1
    return model


def images(count=2, cells=9, size=6):
    torch.manual_seed(4)
    features = Features(
        torch.randn(count, cells, size, dtype=torch.float64),
        segments=torch.rand(count, cells, 5, dtype=torch.float64),
    )
    features.cells[0, 2:4] = 0  # cells that are not there
    features.segments[1, 5] = 0
    return features


CAPTIONS = torch.tensor([[2, 5, 6, 7, 9], [2, 8, 4, 1, 1]])
SAID = torch.tensor([[5, 6, 7, 9, 3], [8, 4, 3, 1, 1]])


@pytest.mark.parametrize("name", ["base", "difnet"])
def test_captions_of_a_batch_are_explained_as_alone_and_as_the_loop_explains_them(name):
    model, features = captioner(name), images()
    found = DIFNetLRP(model, EXACT).explain(features, CAPTIONS, SAID)
    for row, length in enumerate((5, 3)):
        one = slice(row, row + 1)
        encoded, embedded = reference.explain_by_loop(
            model, features.select(one), CAPTIONS[one, :length], SAID[one, :length]
        )
        torch.testing.assert_close(found.encoded[one, :length], encoded, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(
            found.embedded[one, :length, :length], embedded, rtol=1e-7, atol=1e-9
        )
        assert not found.encoded[one, length:].any()
        assert not found.embedded[one, length:].any()


@pytest.mark.parametrize("alpha", [1, 2])
def test_sums_over_the_batch_are_those_of_the_loop_over_it(alpha):
    model, features = captioner(), images()
    found = DIFNetLRP(model, AlphaBeta(alpha, "batch", carried=torch.float64)).explain(
        features, CAPTIONS, SAID, to_inputs=False
    )
    encoded, embedded = reference.explain_by_loop(model, features, CAPTIONS, SAID, alpha)
    torch.testing.assert_close(found.encoded, encoded, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.embedded, embedded, rtol=1e-6, atol=1e-8)
    alone = DIFNetLRP(model, AlphaBeta(alpha, carried=torch.float64)).explain(
        features, CAPTIONS, SAID, to_inputs=False
    )
    assert not torch.allclose(alone.encoded, found.encoded)


@pytest.mark.parametrize("name", ["base", "difnet"])
def test_relevance_of_a_word_is_kept_from_its_logit_to_all_inputs(name):
    model, features = captioner(name, **WIDE), images(size=60)
    features.segments.fill_(0.2)
    for layer in (model.segments.linear,) if name == "difnet" else ():
        layer.weight.data[:, 0] = layer.weight.data[:, 0].abs()
    found = DIFNetLRP(model, EXACT).explain(features, CAPTIONS, SAID)
    total = found.cells.sum((2, 3)) + found.embedded.sum((2, 3))
    if name == "difnet":
        total = total + found.segments.sum((2, 3))
    expected = (CAPTIONS != 1).double()
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-5)
    assert not found.cells[0, :, 2:4].any()
    layers = [layer.sum((2, 3)) for layer in found.layers]
    torch.testing.assert_close(
        sum(layers) + found.words[0].sum((2, 3)), expected, rtol=0, atol=1e-5
    )


def below_layer(layer, x, hidden, r, flow=0):
    """An encoder layer's rules, straight from the sheet: forward again, then back."""
    block = reference.Block.forward(layer.attend, x, x, hidden)
    middle = layer.residual_norms[flow](x + block.y)
    inner = layer.feed_forward.inner(middle).relu()
    found = layer.feed_forward.outer(inner)
    own, sent = reference.add(middle, found, r)
    sent = reference.linear(inner, layer.feed_forward.outer.weight, sent)
    sent = reference.linear(middle, layer.feed_forward.inner.weight, sent)
    own, sent = reference.add(x, block.y, reference.clone(middle, own, sent))
    query, keys, values = block.back(sent, 1.0)
    return reference.clone(x, own, query, keys, values)


@torch.no_grad()
def test_relevance_goes_through_both_flows_as_the_rules_say_one_word_at_a_time():
    model, every = captioner(shared_layers=1, iterations=2), images()
    features, inputs = every.select(slice(0, 1)), CAPTIONS[:1]
    found = DIFNetLRP(model, EXACT).explain(features, inputs, SAID[:1])
    g, s = model.project(features), model.project_segments(features)
    hidden = ~model.attended(features.cells, g).unsqueeze(1)
    hidden_s = ~model.attended(features.segments, s).unsqueeze(1)
    first, *rest = model.encoder
    seen = []
    for _ in range(model.iterations):
        seen.append((g, s))
        g = first(g, ~hidden[:, 0])[0]
        s = first(s, ~hidden_s[:, 0], 1)[0]
    through = [g + s]
    for layer in rest:
        through.append(layer(through[-1], ~hidden[:, 0])[0])
    terms = through[-1], g, s
    for t in range(inputs.shape[1]):
        r = found.encoded[:, t]
        shares = [term * reference.divide(r, sum(terms)) for term in terms]
        sizes = [share.sum().abs() for share in shares]
        u, from_g, from_s = (
            share * size / sum(sizes) * r.sum() / share.sum()
            for share, size in zip(shares, sizes, strict=True)
        )
        for layer, x in zip(reversed(rest), reversed(through[:-1]), strict=True):
            u = below_layer(layer, x, hidden, u)
        ug, us = reference.add(g, s, u)
        rg, rs = reference.clone(g, ug, from_g), reference.clone(s, us, from_s)
        for before_g, before_s in reversed(seen):
            rg = below_layer(first, before_g, hidden, rg)
            rs = below_layer(first, before_s, hidden_s, rs, 1)
        cells = reference.linear(features.cells, model.image.linear.weight, rg)
        segments = reference.linear(features.segments, model.segments.linear.weight, rs)
        torch.testing.assert_close(found.cells[:, t], cells, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found.segments[:, t], segments, rtol=1e-6, atol=1e-8)


def test_single_precision_relevance_of_a_double_precision_pass_is_as_good():
    model, features = captioner(**WIDE).float(), images(size=60)
    features = Features(features.cells.float(), segments=features.segments.float())
    exact = DIFNetLRP(model, EXACT).explain(features, CAPTIONS, SAID)
    mixed = DIFNetLRP(model).explain(features, CAPTIONS, SAID)
    for name in ("encoded", "embedded", "cells", "segments"):
        one, other = getattr(mixed, name), getattr(exact, name)
        assert one.dtype == torch.float32
        assert (one - other).abs().max() <= 1e-3 * other.abs().max()


def test_weights_that_have_changed_are_taken_anew():
    model, features = captioner(), images()
    lrp = DIFNetLRP(model, EXACT)
    lrp.explain(features, CAPTIONS, SAID)
    with torch.no_grad():
        model.encoder[0].feed_forward.inner.weight.mul_(1.5)
    found = lrp.explain(features, CAPTIONS, SAID)
    expected = DIFNetLRP(model, EXACT).explain(features, CAPTIONS, SAID)
    assert torch.equal(found.cells, expected.cells)
