"""gridTD, adaptive and AoA keep the captioner protocol and their equations; padding, parity."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build, configure
from capscope.models.adaptive import Adaptive
from capscope.models.aoa import AoA
from capscope.models.captioner import SumCaptioner, select_rows, with_summands
from capscope.models.gridtd import GridTD
from capscope.models.layers.attention import AdaptiveAttention
from capscope.models.layers.recurrent import LSTM
from capscope.models.published import with_doubled_bias
from capscope.relevance.reweighting import reweight

CONFIGS = {
    "gridtd, features": {"attention": 3},
    "gridtd, projected": {"attention": 3, "global_from": "projected"},
    "adaptive, features": {"attention": 3},
    "adaptive, projected": {"attention": 3, "global_from": "projected"},
    "aoa": {"heads": 3},
}
ADAPTIVE = [kind for kind in CONFIGS if kind != "aoa"]


def captioner(kind: str, **changes: object) -> SumCaptioner:
    torch.manual_seed(0)
    config = {"vocabulary_size": 11, "feature_size": 7, "embedding": 4, "hidden": 6}
    model = build(kind.split(",")[0], **{**config, **CONFIGS[kind], **changes}).eval()
    assert isinstance(model, SumCaptioner)
    return model


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> SumCaptioner:
    return captioner(request.param)


def batch(cells: int = 6) -> tuple[Features, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = Features(torch.randn(3, cells, 7, generator=generator))
    return features, torch.randint(0, 11, (3, 5), generator=generator)


def test_steps_equal_the_teacher_forced_pass(model: SumCaptioner) -> None:
    features, word_ids = batch()
    hidden = model.hidden(features, word_ids)
    expected = model.readout(hidden.values).log_softmax(-1)
    memory = model.encode(features)
    state = model.start(memory)
    for t in range(word_ids.shape[1]):
        step = model.step(word_ids[:, t : t + 1], state, memory)
        state = step.state
        torch.testing.assert_close(step.log_probs[:, 0], expected[:, t])
        torch.testing.assert_close(step.attention[:, 0], hidden.attention[:, t])


def test_rows_of_an_image_are_independent_and_can_be_reordered(model: SumCaptioner) -> None:
    features, word_ids = batch()
    memory = model.encode(features)
    beams = model.step(word_ids[:, :4], model.start(memory, rows=4), memory)
    for row in range(4):
        alone = model.step(word_ids[:, row : row + 1], model.start(memory), memory)
        torch.testing.assert_close(beams.log_probs[:, row], alone.log_probs[:, 0])
    order = torch.tensor([[2, 2], [0, 3], [1, 0]])
    chosen = select_rows(beams.state, order)
    for name, tensor in chosen.items():
        assert torch.equal(tensor[1, 1], beams.state[name][1, 3])
        assert tensor.shape[:2] == (3, 2)


def test_selected_logits_equal_rows_of_all_logits(model: SumCaptioner) -> None:
    features, word_ids = batch()
    values = model.hidden(features, word_ids).values
    expected = model.readout(values).gather(2, word_ids.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(model.readout(values, word_ids), expected)


def test_the_summands_add_up_to_what_is_read_out(model: SumCaptioner) -> None:
    features, word_ids = batch()
    hidden, context = with_summands(model).summands(features, word_ids)
    torch.testing.assert_close(hidden + context, model.hidden(features, word_ids).values)
    memory = model.encode(features)
    state = model.start(memory)
    for t in range(word_ids.shape[1]):
        step, state = model.step_summands(word_ids[:, t : t + 1], state, memory)
        torch.testing.assert_close(step.hidden[:, 0], hidden[:, t])
        torch.testing.assert_close(step.context[:, 0], context[:, t])


def test_neutral_words_leave_the_summands_as_they_are(model: SumCaptioner) -> None:
    summands = model.summands(*batch())
    weighted = reweight(model, summands, torch.zeros(11, dtype=torch.bool))
    assert (weighted.weighted - weighted.logits).abs().max() > 1e-3
    same = reweight(model, summands, torch.ones(11, dtype=torch.bool))
    assert torch.equal(same.weighted, same.logits)
    assert torch.equal(same.hidden, torch.ones_like(same.hidden))


def cell_of(lstm: LSTM) -> torch.nn.LSTMCell:
    """Return torch's cell with the weights of ours, without the sentinel gate."""
    rows = 4 * lstm.weight_hh.shape[1]
    cell = torch.nn.LSTMCell(lstm.weight_ih.shape[1], lstm.weight_hh.shape[1])
    cell.load_state_dict({name: value[:rows] for name, value in lstm.state_dict().items()})
    return cell


def attend(attention: AdaptiveAttention, h: Tensor, s: Tensor, values: Tensor) -> Tensor:
    """Adaptive attention of one image, entry by entry: beta s + (1 - beta) sum_k alpha_k V_k."""
    width = attention.width
    score, query = attention.score.weight[0], attention.query.weight @ h
    scores = []
    for value in values:
        inside = attention.visual.weight @ value + attention.visual.bias + query
        scores.append(sum(score[j] * torch.tanh(inside[j]) for j in range(width)))
    inside = attention.sentinel.weight @ s + attention.sentinel.bias + query
    against = sum(score[j] * torch.tanh(inside[j]) for j in range(width))
    alpha = torch.stack(scores).softmax(0)
    beta = torch.stack([*scores, against]).softmax(0)[-1]
    return beta * s + (1 - beta) * sum(a * value for a, value in zip(alpha, values, strict=True))


@pytest.mark.parametrize("global_from", ["features", "projected"])
def test_adaptive_follows_its_equations(global_from: str) -> None:
    model = captioner("adaptive, features", global_from=global_from)
    assert isinstance(model, Adaptive)
    features, word_ids = batch()
    cell, size = cell_of(model.lstm), model.hidden_size
    gate_x, gate_h = model.lstm.weight_ih[4 * size :], model.lstm.weight_hh[4 * size :]
    bias = model.lstm.bias_ih[4 * size :] + model.lstm.bias_hh[4 * size :]
    logits = model.readout(model.hidden(features, word_ids).values)
    for b, cells in enumerate(features.cells):
        values = model.projection(cells).relu()
        source = cells if global_from == "features" else values
        pooled = model.global_projection(source.mean(0)).relu()
        h, c = torch.zeros(1, size), torch.zeros(1, size)
        for t, word in enumerate(word_ids[b]):
            x = torch.cat([model.embedding.weight[word], pooled])
            opened = torch.sigmoid(gate_x @ x + gate_h @ h[0] + bias)
            h, c = cell(x.unsqueeze(0), (h, c))
            mixed = attend(model.attention, h[0], opened * torch.tanh(c[0]), values)
            expected = model.words.weight @ (h[0] + mixed) + model.words.bias
            torch.testing.assert_close(logits[b, t], expected)


def test_aoa_follows_its_equations() -> None:
    model = captioner("aoa")
    assert isinstance(model, AoA)
    features, word_ids = batch()
    cell, heads = cell_of(model.lstm), model.attention.heads
    logits = model.readout(model.hidden(features, word_ids).values)
    for b, cells in enumerate(features.cells):
        latent = model.projection(cells).relu()
        keys, values = (
            layer(latent).view(len(cells), heads, -1).transpose(0, 1)
            for layer in (model.attention.key, model.attention.value)
        )
        h, c = torch.zeros(1, model.hidden_size), torch.zeros(1, model.hidden_size)
        for t, word in enumerate(word_ids[b]):
            x = torch.cat([model.embedding.weight[word], latent.mean(0)])
            h, c = cell(x.unsqueeze(0), (h, c))
            query = model.attention.query(h[0]).view(heads, 1, -1)
            found = functional.scaled_dot_product_attention(query, keys, values).flatten()
            gated = torch.sigmoid(model.gate(h[0])) * model.linear(found)
            expected = model.words.weight @ (h[0] + gated) + model.words.bias
            torch.testing.assert_close(logits[b, t], expected)


def test_padded_regions_change_nothing(model: SumCaptioner) -> None:
    features, word_ids = batch()
    padding = torch.full((3, 2, 7), 9.0)
    padded = Features(
        torch.cat([features.cells, padding], 1), valid=(torch.arange(8) < 6).expand(3, 8)
    )
    plain = model.hidden(features, word_ids)
    found = model.hidden(padded, word_ids)
    torch.testing.assert_close(found.values, plain.values)
    torch.testing.assert_close(found.attention[..., :6], plain.attention)
    assert not found.attention[..., 6:].any()


@pytest.mark.parametrize("kind", CONFIGS)
def test_under_parity_padded_regions_take_part(kind: str) -> None:
    width = {} if kind == "aoa" else {"attention": 6}
    model = captioner(kind, parity=True, **width)
    features, word_ids = batch()
    valid = (torch.arange(6) < 4).expand(3, 6)
    plain = model.hidden(features, word_ids)
    assert torch.equal(model.hidden(features._replace(valid=valid), word_ids).values, plain.values)


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_parity_broadcasts_a_scalar_and_needs_the_published_width(kind: str) -> None:
    right, parity = captioner(kind, attention=6), captioner(kind, attention=6, parity=True)
    features, word_ids = batch()
    parity.load_state_dict(right.state_dict())
    first = right.hidden(features, word_ids).attention
    assert (first - parity.hidden(features, word_ids).attention).abs().max() > 1e-4
    with pytest.raises(CapscopeError, match=r"5 visual features.*width \(6\)"):
        parity.encode(batch(cells=5)[0])


def test_under_parity_gridtd_is_fine_tuned_on_another_pass_than_it_speaks() -> None:
    """Its sentinel gate then comes from the new h1, and nothing is dropped."""
    right = captioner("gridtd, features", attention=6)
    published = captioner("gridtd, features", attention=6, parity=True).train()
    features, word_ids = batch()
    values = published.eval().hidden(features, word_ids).values
    hidden, context = published.summands(features, word_ids)
    assert (hidden + context - values).abs().max() > 1e-4
    total = right.train().hidden(features, word_ids).values
    assert torch.equal(published.train().predict(total), published.readout(total))
    assert not torch.equal(right.predict(total), right.readout(total))


def test_dropout_works_in_training_only(model: SumCaptioner) -> None:
    features, word_ids = batch()
    assert torch.equal(
        model.hidden(features, word_ids).values, model.hidden(features, word_ids).values
    )
    model.train()
    assert (model.hidden(features, word_ids).values == 0).float().mean() > 0.1


def test_attention_dropout_reaches_the_context_and_not_the_reported_weights() -> None:
    model = captioner("aoa", dropout=0.0, attention_dropout=0.5).train()
    features, word_ids = batch()
    first, second = (model.hidden(features, word_ids) for _ in range(2))
    assert not torch.equal(first.values, second.values)
    torch.testing.assert_close(first.attention.sum(-1), torch.ones(3, 5, 3))


def test_all_parameters_learn(model: SumCaptioner) -> None:
    model.train()
    features, word_ids = batch()
    model.readout(model.hidden(features, word_ids).values).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name != "attention.key.bias":  # a constant on all keys does not change the softmax
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_an_unknown_source_of_the_global_feature_is_refused(kind: str) -> None:
    with pytest.raises(CapscopeError, match=r"'cells'; allowed: features, projected"):
        captioner(kind, global_from="cells")


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(CapscopeError, match=r"heads = 4 does not divide hidden = 6"):
        captioner("aoa", heads=4)


@pytest.mark.parametrize("name", ["gridtd", "adaptive"])
def test_the_global_feature_follows_the_kind_of_visual_features(name: str) -> None:
    settings = {"hidden": 5, "global_from": None}
    assert configure(name, "grid", settings) == {"hidden": 5, "global_from": "features"}
    assert configure(name, "regions", settings) == {"hidden": 5, "global_from": "projected"}
    chosen = {"global_from": "features"}
    assert configure(name, "regions", chosen) == chosen
    assert configure("aoa", "regions", {"heads": 2}) == {"heads": 2}


def test_the_published_bias_counts_twice_where_it_did() -> None:
    for kind in CONFIGS:
        model = captioner(kind)
        copy = with_doubled_bias(model)
        if isinstance(model, GridTD | AoA):
            features, word_ids = batch()
            changed = copy.hidden(features, word_ids).values - model.hidden(*batch()).values
            assert changed.abs().max() > 1e-3
            lstm = copy.language_lstm if isinstance(copy, GridTD) else copy.lstm
            assert torch.equal(lstm.bias_hh, lstm.bias_ih)
        else:
            assert copy is model
