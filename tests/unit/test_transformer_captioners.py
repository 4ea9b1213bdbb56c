"""The transformers: protocol, relevance against the closed recursion, bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.layers.box_positions import BoxPositions
from capscope.models.layers.multi_head import attention_weights
from capscope.models.layers.xlinear import PairedLinear
from capscope.models.spatial import SpatialTransformer
from capscope.relevance import operations as ops
from capscope.relevance.backward import word_relevance
from capscope.relevance.operations import relevance_mode
from capscope.relevance.recursion_spatial import spatial_lrp
from capscope.relevance.rules import ATTN_LRP, GRADIENT, GRADIENT_X_INPUT, LRP, Rules

CONFIGS: dict[str, dict[str, Any]] = {
    "none, dot product": {"positions": "none", "cross": "dot_product"},
    "gxg, xlinear": {"positions": "gxg", "cross": "xlinear"},
    "fixed, dot product, rms": {"positions": "fixed", "cross": "dot_product", "norm": "rms"},
    "learned, xlinear, gelu": {"positions": "learned", "cross": "xlinear", "activation": "gelu"},
    "g2 by cells, xlinear, rms": {"positions": "g2", "grid_mode": "cell", "norm": "rms"},
    "box, dot product, gelu": {"positions": "box", "cross": "dot_product", "activation": "gelu"},
    "object relation": {},
}
SIZES = {"vocabulary_size": 11, "feature_size": 7, "hidden": 8, "heads": 2, "feed_forward": 6}


def captioner(kind: str = "gxg, xlinear", **more: Any) -> SpatialTransformer:
    torch.manual_seed(0)
    name = "object_relation" if kind == "object relation" else "spatial"
    grid = {"grid": 3} if name == "spatial" else {}
    model = build(name, **SIZES, layers=2, dropout=0.0, **grid, **CONFIGS[kind], **more)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -1.0, 1.0)
    assert isinstance(model, SpatialTransformer)
    return model.double().eval()


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> SpatialTransformer:
    return captioner(request.param)


def batch(size: int = 2, steps: int = 3, padded: bool = False) -> tuple[Features, Tensor]:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randn(size, 4, 7, dtype=torch.float64, generator=generator)
    boxes = torch.rand(size, 4, 2, 2, dtype=torch.float64, generator=generator).sort(2).values
    word_ids = torch.randint(0, 11, (size, steps + 1), generator=generator)
    valid = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])[:size] if padded else None
    return Features(cells, boxes.flatten(2), valid), word_ids


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_lrp_equals_the_closed_recursion(model: SpatialTransformer, padded: bool) -> None:
    features, word_ids = batch(padded=padded)
    found = word_relevance(model, features, word_ids, LRP)
    for b, traces in enumerate(spatial_lrp(model, features, word_ids)):
        for t, trace in enumerate(traces):
            torch.testing.assert_close(found.features[b, t], trace.features)
            torch.testing.assert_close(found.words[b, t, : t + 1], trace.words.sum(1))
            assert float(found.logits[b, t]) == pytest.approx(trace.logit)
            assert float(found.absorbed[b, t]) == pytest.approx(sum(trace.shares.values()))
            assert trace.total() == pytest.approx(trace.logit)


@pytest.mark.parametrize("cross", ["dot_product", "xlinear"])
def test_without_biases_positions_and_stabiliser_relevance_is_conserved(cross: str) -> None:
    model = captioner("none, dot product") if cross == "dot_product" else captioner()
    model.positions = BoxPositions("none", model.hidden_size)
    with torch.no_grad():
        model.table.zero_()
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.zero_()
    found = word_relevance(model, *batch(padded=True), replace(LRP, epsilon=0.0))
    assert found.logits.abs().min() > 1e-3
    zeros = torch.zeros_like(found.absorbed)
    torch.testing.assert_close(found.absorbed, zeros, rtol=0, atol=1e-9)
    other = word_relevance(model, *batch(padded=True), replace(ATTN_LRP, epsilon=0.0))
    assert (other.features - found.features).abs().max() > 1e-3


@pytest.mark.parametrize("rules", [GRADIENT, GRADIENT_X_INPUT])
def test_gradient_rules_are_ordinary_back_propagation(
    model: SpatialTransformer, rules: Rules
) -> None:
    features, word_ids = batch()
    found = word_relevance(model, features, word_ids, rules)
    cells = features.cells.clone().requires_grad_()
    hidden = model.hidden(features._replace(cells=cells), word_ids[:, :-1])
    logits = model.readout(hidden.values)
    for t in range(word_ids.shape[1] - 1):
        picked = logits[:, t].gather(1, word_ids[:, t + 1 : t + 2]).sum()
        (gradient,) = torch.autograd.grad(picked, cells, retain_graph=True)
        expected = gradient * features.cells if rules.times_input else gradient
        torch.testing.assert_close(found.features[:, t], expected)


@pytest.mark.parametrize("rules", [LRP, ATTN_LRP, GRADIENT])
def test_relevance_mode_keeps_every_bit_and_words_do_not_see_what_follows(
    model: SpatialTransformer, rules: Rules
) -> None:
    features, word_ids = batch(padded=True)
    plain = model.readout(model.hidden(features, word_ids[:, :-1]).values, word_ids[:, 1:])
    found = word_relevance(model, features, word_ids, rules)
    assert torch.equal(found.logits, plain)
    shorter = word_relevance(model, features, word_ids[:, :3], rules)
    torch.testing.assert_close(found.features[:, :2], shorter.features)
    assert found.features[1, :, 2:].eq(0).all()
    alone = word_relevance(model, features.select(slice(1, 2)), word_ids[1:], rules)
    torch.testing.assert_close(alone.features[0], found.features[1])


def test_shared_attention_gives_query_key_and_value_their_halves() -> None:
    """AttnLRP by its equations: the matmul rule, then the softmax rule, then the matmul rule."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (
        torch.randn(1, n, 4, dtype=torch.float64, generator=generator).requires_grad_()
        for n in (2, 3, 3)
    )
    seed = torch.randn(1, 2, 4, dtype=torch.float64, generator=generator)
    with relevance_mode(replace(ATTN_LRP, epsilon=0.0)):
        weights = attention_weights(q, k, 1)
        out = ops.attend(weights, v)
    found = torch.autograd.grad(out, [q, k, v], seed)
    relevance = (out * seed)[0]
    a = weights[0, :, 0]
    messages = a.unsqueeze(-1) * v[0] * (relevance / out[0]).unsqueeze(1) / 2  # (query, value, d)
    to_values, to_weights = messages.sum(0), messages.sum(-1)
    scores = q[0] @ k[0].t() / 2  # sqrt(4)
    to_scores = scores * (to_weights - a * to_weights.sum(-1, keepdim=True))
    products = q[0].unsqueeze(1) * k[0] / 2 * (to_scores / scores).unsqueeze(-1) / 2
    torch.testing.assert_close((v * found[2])[0], to_values)
    torch.testing.assert_close((q * found[0])[0], products.sum(1))
    torch.testing.assert_close((k * found[1])[0], products.sum(0))


@pytest.mark.parametrize("rules", [LRP, ATTN_LRP, GRADIENT_X_INPUT])
def test_without_channels_each_region_has_the_sum_of_them(
    model: SpatialTransformer, rules: Rules
) -> None:
    features, word_ids = batch(padded=True)
    whole = word_relevance(model, features, word_ids, rules)
    summed = word_relevance(model, features, word_ids, rules, channels=False)
    torch.testing.assert_close(summed.features, whole.features.sum(-1, keepdim=True))
    torch.testing.assert_close(summed.words, whole.words)
    torch.testing.assert_close(summed.absorbed, whole.absorbed)
    assert torch.equal(summed.logits, whole.logits)


def test_several_captions_of_an_image_share_its_encoding(model: SpatialTransformer) -> None:
    features, _ = batch(padded=True)
    word_ids = torch.randint(0, 11, (6, 4), generator=torch.Generator().manual_seed(5))
    together = model.hidden(features, word_ids)
    rows = torch.arange(2).repeat_interleave(3)
    apart = model.hidden(features.select(rows), word_ids)
    torch.testing.assert_close(together.values, apart.values)
    torch.testing.assert_close(together.attention, apart.attention)


@pytest.mark.parametrize("rows", [1, 3])
def test_steps_say_what_the_whole_pass_says(model: SpatialTransformer, rows: int) -> None:
    features, _ = batch(padded=True)
    word_ids = torch.randint(0, 11, (2 * rows, 5), generator=torch.Generator().manual_seed(5))
    hidden = model.hidden(features, word_ids)
    expected = model.readout(hidden.values).log_softmax(-1).view(2, rows, 5, -1)
    memory = model.encode(features)
    state = model.start(memory, rows)
    for t in range(5):
        step = model.step(word_ids[:, t].view(2, rows), state, memory)
        state = step.state
        torch.testing.assert_close(step.log_probs, expected[:, :, t])


def test_pairs_in_portions_have_the_gradient_of_the_plain_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import capscope.models.layers.xlinear as module

    monkeypatch.setattr(module, "CHUNK_NUMBERS", 60)
    tensors = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 3), (2, 4, 3), (6, 3), (6,))
    ]
    query, key, weight, bias = tensors
    found = PairedLinear.apply(*tensors)
    plain = torch.nn.functional.linear(query.unsqueeze(2) * key.unsqueeze(1), weight, bias)
    torch.testing.assert_close(found, plain)
    seed = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad(found, tensors, seed), torch.autograd.grad(plain, tensors, seed)
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_image_without_regions_is_captioned_and_explained_without_nan(kind: str) -> None:
    model = captioner(kind)
    features, word_ids = batch(padded=True)
    features = features._replace(valid=torch.tensor([[True] * 4, [False] * 4]))
    hidden = model.hidden(features, word_ids)
    assert hidden.values.isfinite().all()
    model.readout(hidden.values).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    found = word_relevance(model, features, word_ids, LRP)
    assert found.features.isfinite().all()
    assert found.features[1].eq(0).all()
    other = model.hidden(features._replace(cells=features.cells + 1), word_ids)
    torch.testing.assert_close(other.values[1], hidden.values[1])  # it sees nothing


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("positions", "polar", "allowed: none, fixed, learned, gxg, g2, box"),
        ("cross", "linear", "allowed: dot_product, xlinear"),
        ("norm", "batch", "allowed: layer, rms"),
        ("activation", "tanh", "allowed: relu, gelu"),
        ("grid_mode", "area", "allowed: box, cell"),
        ("heads", 3, "does not divide hidden = 8"),
    ],
)
def test_unknown_options_are_refused_with_those_that_are_known(
    option: str, value: object, message: str
) -> None:
    with pytest.raises(CapscopeError, match=message):
        build("spatial", **{**SIZES, "layers": 1, option: value})


@pytest.mark.parametrize("kind", ["gxg, xlinear", "object relation"])
def test_features_without_boxes_are_refused(kind: str) -> None:
    features, word_ids = batch()
    with pytest.raises(CapscopeError, match="needs the boxes of the visual features"):
        captioner(kind).hidden(features._replace(boxes=None), word_ids)


def test_dropout_works_in_training_only() -> None:
    torch.manual_seed(0)
    model = build("spatial", **SIZES, layers=1, grid=3, dropout=0.5).double()
    features, word_ids = batch()
    assert not torch.equal(
        model.hidden(features, word_ids).values, model.hidden(features, word_ids).values
    )
    model.eval()
    assert torch.equal(
        model.hidden(features, word_ids).values, model.hidden(features, word_ids).values
    )
