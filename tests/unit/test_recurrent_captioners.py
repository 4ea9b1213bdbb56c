"""RNN, LSTM and attention LSTM: protocol, libraries' twins, relevance against their equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.methods import search_images
from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build, configure
from capscope.models.captioner import Hidden, select_rows
from capscope.models.recurrent import AttentionLSTM, ImageFirst, Recurrent
from capscope.relevance.backward import word_relevance
from capscope.relevance.recursion_recurrent import recurrent_lrp
from capscope.relevance.rules import GRADIENT, GRADIENT_X_INPUT, LRP, Rules

CELLS, SIZE, WORDS = 6, 7, 11
KINDS: dict[str, dict[str, Any]] = {
    "rnn, mean": {"visual": "mean"},
    "rnn, flatten": {"visual": "flatten", "cells": CELLS},
    "lstm, mean": {"visual": "mean"},
    "lstm, flatten": {"visual": "flatten", "cells": CELLS},
    "attention_lstm": {},
}
MASKED = [kind for kind in KINDS if "flatten" not in kind]
RULES = [LRP, GRADIENT, GRADIENT_X_INPUT]


def captioner(kind: str) -> Recurrent:
    torch.manual_seed(0)
    sizes = {"vocabulary_size": WORDS, "feature_size": SIZE, "embedding": 4, "hidden": 5}
    model = build(kind.split(",")[0], **sizes, **KINDS[kind])
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    assert isinstance(model, Recurrent)
    return model.double().eval()


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Recurrent:
    return captioner(request.param)


def batch(size: int = 3, steps: int = 4, padded: bool = False) -> tuple[Features, Tensor]:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randn(size, CELLS, SIZE, dtype=torch.float64, generator=generator)
    valid = torch.arange(CELLS).expand(size, CELLS) < 4 if padded else None
    word_ids = torch.randint(0, WORDS, (size, steps + 1), generator=generator)
    return Features(cells, valid=valid), word_ids


def first_states(model: Recurrent, cells: Tensor) -> Tensor:
    """Return h before the first word (B, H), from the equations."""
    if isinstance(model, ImageFirst):
        seen = cells.mean(1) if model.visual == "mean" else cells.transpose(1, 2).reshape(3, -1)
        return model.first(seen)
    return model.projection(cells).mean(1)


def test_steps_equal_the_teacher_forced_pass(model: Recurrent) -> None:
    features, word_ids = batch()
    hidden = model.hidden(features, word_ids)
    expected = model.readout(hidden.values).log_softmax(-1)
    assert (hidden.attention is None) == (not model.attends)
    memory = model.encode(features)
    state = model.start(memory)
    for t in range(word_ids.shape[1]):
        step = model.step(word_ids[:, t : t + 1], state, memory)
        state = step.state
        torch.testing.assert_close(step.log_probs[:, 0], expected[:, t])
        if hidden.attention is not None:
            torch.testing.assert_close(step.attention[:, 0], hidden.attention[:, t])


def test_rows_of_an_image_are_independent_and_can_be_reordered(model: Recurrent) -> None:
    features, word_ids = batch()
    memory = model.encode(features)
    beams = model.step(word_ids[:, :4], model.start(memory, rows=4), memory)
    for row in range(4):
        alone = model.step(word_ids[:, row : row + 1], model.start(memory), memory)
        torch.testing.assert_close(beams.log_probs[:, row], alone.log_probs[:, 0])
    chosen = select_rows(beams.state, torch.tensor([[2, 2], [0, 3], [1, 0]]))
    for name, tensor in chosen.items():
        assert torch.equal(tensor[1, 1], beams.state[name][1, 3])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("rnn")])
def test_the_rnn_is_that_of_torch(kind: str) -> None:
    model = captioner(kind)
    features, word_ids = batch()
    twin = nn.RNN(4, 5, batch_first=True).double()
    weights = {
        "weight_ih_l0": model.cell.weight_ih,
        "weight_hh_l0": model.cell.weight_hh,
        "bias_ih_l0": model.cell.bias,
        "bias_hh_l0": torch.zeros(5),
    }
    twin.load_state_dict(weights)
    first = first_states(model, features.cells).unsqueeze(0)
    expected = twin(model.embedding(word_ids), first)[0]
    torch.testing.assert_close(model.hidden(features, word_ids).values, expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("lstm")])
@pytest.mark.parametrize("fused", [True, False])
def test_the_lstm_is_that_of_torch(kind: str, fused: bool) -> None:
    model = captioner(kind)
    features, word_ids = batch()
    twin = nn.LSTM(4, 5, batch_first=True).double()
    weights = {
        "weight_ih_l0": model.cell.weight_ih,
        "weight_hh_l0": model.cell.weight_hh,
        "bias_ih_l0": model.cell.bias_ih,
        "bias_hh_l0": torch.zeros(20),
    }
    twin.load_state_dict(weights)
    first = first_states(model, features.cells).unsqueeze(0)
    expected = twin(model.embedding(word_ids), (first, torch.zeros_like(first)))[0]
    found = model.hidden(features, word_ids) if fused else Recurrent.hidden(model, *batch())
    torch.testing.assert_close(found.values, expected)


def test_the_attention_lstm_follows_its_equations() -> None:
    model = captioner("attention_lstm")
    assert isinstance(model, AttentionLSTM)
    features, word_ids = batch()
    found = model.hidden(features, word_ids)
    twin = nn.LSTMCell(9, 5).double()
    twin.load_state_dict(
        {
            "weight_ih": model.cell.weight_ih,
            "weight_hh": model.cell.weight_hh,
            "bias_ih": model.cell.bias_ih,
            "bias_hh": torch.zeros(20),
        }
    )
    for b, cells in enumerate(features.cells):
        values = [model.projection(cell) for cell in cells]
        h = c = sum(values) / len(values)
        for t, word in enumerate(word_ids[b]):
            scores = torch.stack([sum(h * value) / len(h) ** 0.5 for value in values])
            alpha = scores.exp() / scores.exp().sum()
            context = sum(a * value for a, value in zip(alpha, values, strict=True))
            x = torch.cat([model.embedding.weight[word], context])
            h, c = (one[0] for one in twin(x.unsqueeze(0), (h.unsqueeze(0), c.unsqueeze(0))))
            torch.testing.assert_close(found.attention[b, t], alpha)
            torch.testing.assert_close(found.values[b, t], h)


@pytest.mark.parametrize("kind", MASKED)
def test_padded_features_change_nothing(kind: str) -> None:
    model = captioner(kind)
    features, word_ids = batch()
    padded = Features(
        torch.cat([features.cells, torch.full((3, 2, SIZE), 9.0)], 1),
        valid=(torch.arange(CELLS + 2) < CELLS).expand(3, -1),
    )
    plain, found = model.hidden(features, word_ids), model.hidden(padded, word_ids)
    torch.testing.assert_close(found.values, plain.values)
    if plain.attention is not None:
        torch.testing.assert_close(found.attention[..., :CELLS], plain.attention)
        assert not found.attention[..., CELLS:].any()


def test_all_parameters_learn(model: Recurrent) -> None:
    model.train()
    features, word_ids = batch()
    model.readout(model.hidden(features, word_ids).values).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["lstm, mean", "attention_lstm"])
def test_a_faster_teacher_forced_pass_has_the_gradients_of_single_steps(
    kind: str, padded: bool
) -> None:
    model = captioner(kind)
    features, word_ids = batch(padded=padded)

    def gradients(hidden: Callable[..., Hidden]) -> tuple[Tensor, ...]:
        found = hidden(features, word_ids)
        loss = model.readout(found.values).square().sum()
        if found.attention is not None:
            loss = loss + found.attention.square().sum()
        return torch.autograd.grad(loss, list(model.parameters()))

    expected = gradients(partial(Recurrent.hidden, model))
    for ours, theirs in zip(gradients(model.hidden), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_new_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    sizes = {"vocabulary_size": 500, "feature_size": 40, "embedding": 200, "hidden": 300}
    for name in ("rnn", "lstm", "attention_lstm"):
        published = {"recurrent": "normal"} if name == "rnn" else {"forget_bias": 0}
        model = build(name, **sizes, **published)
        drawn = {
            "embedding.weight": (model.embedding.weight, 500),
            "cell.weight_hh": (model.cell.weight_hh, 300),
            "words of the cell": (model.cell.weight_ih[:, :200], 200),
        }
        if name == "attention_lstm":
            drawn["context of the cell"] = (model.cell.weight_ih[:, 200:], 300)
        for what, (weight, fan_in) in drawn.items():
            assert float(weight.detach().std()) == pytest.approx(fan_in**-0.5, rel=0.02), what
        biases = [value for key, value in model.cell.named_parameters() if "bias" in key]
        assert len(biases) == 1
        assert not biases[0].any()


@pytest.mark.parametrize("name", ["lstm", "attention_lstm"])
def test_new_cells_remember_unless_they_are_to_be_as_published(name: str) -> None:
    sizes = {"vocabulary_size": 5, "feature_size": 4, "embedding": 3, "hidden": 2}
    for settings, expected in (({}, 1.0), ({"forget_bias": 2.5}, 2.5)):
        _, forget, *others = build(name, **sizes, **settings).cell.bias_ih.chunk(4)
        assert forget.tolist() == [expected] * 2
        assert not any(gate.any() for gate in others)


def test_a_new_rnn_remembers_unless_it_is_to_be_as_published() -> None:
    sizes = {"vocabulary_size": 5, "feature_size": 4, "embedding": 3, "hidden": 2}
    assert build("rnn", **sizes).cell.weight_hh.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(CapscopeError, match="recurrent is 'none'; allowed: identity, normal"):
        build("rnn", **sizes, recurrent="none")


@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_what_is_flattened_must_have_a_known_and_fixed_number_of_cells(name: str) -> None:
    sizes = {"vocabulary_size": WORDS, "feature_size": SIZE}
    with pytest.raises(CapscopeError, match="needs `cells`"):
        build(name, **sizes, visual="flatten")
    with pytest.raises(CapscopeError, match="visual is 'max'; allowed: mean, flatten"):
        build(name, **sizes, visual="max")
    model = captioner(f"{name}, flatten")
    with pytest.raises(CapscopeError, match=f"5 visual features, but .* flattens {CELLS}"):
        model.encode(Features(torch.zeros(1, 5, SIZE, dtype=torch.float64)))


def test_the_number_of_cells_to_flatten_comes_from_the_visual_features() -> None:
    settings = {"hidden": 5, "visual": "flatten", "cells": None}
    assert configure("rnn", "grid", settings, 64)["cells"] == 64
    assert configure("rnn", "grid", {**settings, "cells": 16}, 64)["cells"] == 16
    assert "cells" not in configure("rnn", "grid", {**settings, "visual": "mean"}, 64)


@pytest.mark.parametrize(
    ("kind", "padded"), [*((kind, False) for kind in KINDS), *((kind, True) for kind in MASKED)]
)
def test_lrp_equals_the_closed_recursion(kind: str, padded: bool) -> None:
    model = captioner(kind)
    features, word_ids = batch(padded=padded)
    found = word_relevance(model, features, word_ids, LRP)
    for b, traces in enumerate(recurrent_lrp(model, features, word_ids)):
        for t, trace in enumerate(traces):
            torch.testing.assert_close(found.features[b, t], trace.features)
            torch.testing.assert_close(found.words[b, t, : t + 1], trace.words.sum(1))
            assert not found.words[b, t, t + 1 :].any()
            assert float(found.logits[b, t]) == pytest.approx(trace.logit)
            assert float(found.absorbed[b, t]) == pytest.approx(sum(trace.shares.values()))
            assert trace.total() == pytest.approx(trace.logit)


def test_without_biases_and_stabiliser_relevance_is_conserved(model: Recurrent) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.zero_()
    found = word_relevance(model, *batch(), replace(LRP, epsilon=0.0))
    assert found.logits.abs().min() > 1e-3
    assert found.features.abs().sum() > 1
    torch.testing.assert_close(found.absorbed, torch.zeros_like(found.absorbed), rtol=0, atol=1e-9)


def test_gradient_rules_are_ordinary_back_propagation(model: Recurrent) -> None:
    """Those of attention go through its weights, by way of the previous state."""
    features, _ = batch()
    word_ids = torch.tensor([[1, 2, 3, 4, 5]] * 3)  # no word twice: rows of the table are places
    found = word_relevance(model, features, word_ids, GRADIENT)
    times_input = word_relevance(model, features, word_ids, GRADIENT_X_INPUT)
    cells = features.cells.clone().requires_grad_()
    logits = model.readout(model.hidden(Features(cells), word_ids[:, :-1]).values)
    inputs = [cells, model.embedding.weight]
    for t in range(word_ids.shape[1] - 1):
        for b in range(3):
            picked = logits[b, t, word_ids[b, t + 1]]
            gradient, table = torch.autograd.grad(picked, inputs, retain_graph=True)
            torch.testing.assert_close(found.features[b, t], gradient[b])
            torch.testing.assert_close(times_input.features[b, t], gradient[b] * features.cells[b])
            torch.testing.assert_close(found.words[b, t], table[word_ids[b, :-1]].sum(1))


def test_under_lrp_attention_weights_are_constants() -> None:
    """Relevance is that of a model whose weights are given from outside, whatever made them."""
    model = captioner("attention_lstm")
    features, word_ids = batch()
    rules = replace(GRADIENT, attention="constant")
    found = word_relevance(model, features, word_ids, rules)
    whole = word_relevance(model, features, word_ids, GRADIENT)
    assert (found.features - whole.features).abs().max() > 1e-3
    cells = features.cells.clone().requires_grad_()
    maps = model.hidden(features, word_ids).attention.detach()
    values = model.projection(cells)
    h = c = values.mean(1, keepdim=True)
    for t, words in enumerate(model.projected(word_ids[:, :-1]).chunk(4, 1)):
        context = maps[:, t : t + 1] @ values
        cell = model.cell(words + model.cell.project(1, context), h, c)
        h, c = cell.h, cell.c
        picked = model.readout(h)[:, 0].gather(1, word_ids[:, t + 1 : t + 2]).sum()
        (gradient,) = torch.autograd.grad(picked, cells, retain_graph=True)
        torch.testing.assert_close(found.features[:, t], gradient)


@pytest.mark.parametrize("rules", RULES)
def test_relevance_mode_keeps_the_forward_pass(model: Recurrent, rules: Rules) -> None:
    """To the bit, but for the library's LSTM, which sums in another order."""
    model = model.float()
    features, word_ids = batch()
    features = Features(features.cells.float())
    plain = Recurrent.hidden(model, features, word_ids[:, :-1])
    found = word_relevance(model, features, word_ids, rules)
    assert torch.equal(found.logits, model.readout(plain.values, word_ids[:, 1:]))
    fused = model.hidden(features, word_ids[:, :-1])
    torch.testing.assert_close(fused.values, plain.values)
    if plain.attention is not None:
        assert torch.equal(found.attention, plain.attention)


@pytest.mark.parametrize("rules", RULES)
def test_a_batch_gives_what_each_caption_gives_alone(model: Recurrent, rules: Rules) -> None:
    features, word_ids = batch()
    together = word_relevance(model, features, word_ids, rules)
    for row in range(3):
        one_row = slice(row, row + 1)
        alone = word_relevance(model, features.select(one_row), word_ids[one_row], rules)
        for one, all_rows in zip(alone, together, strict=True):
            if all_rows is not None:
                torch.testing.assert_close(one[0], all_rows[row])


def test_a_word_does_not_depend_on_what_follows_it(model: Recurrent) -> None:
    features, word_ids = batch()
    longer = word_relevance(model, features, word_ids, LRP)
    shorter = word_relevance(model, features, word_ids[:, :3], LRP)
    torch.testing.assert_close(longer.features[:, :2], shorter.features)
    torch.testing.assert_close(longer.words[:, :2, :2], shorter.words)


@pytest.mark.parametrize("method", ["greedy", "beam", "diverse_beam", "sample"])
def test_every_decoder_says_what_a_teacher_forced_pass_finds_as_likely(
    model: Recurrent, method: str
) -> None:
    words = tuple(f"word{i}" for i in range(WORDS - 4))
    vocabulary = Vocabulary(("_", "<s>", "</s>", "?", *words), pad=0, start=1, end=2, unk=3)
    features, _ = batch()
    settings = {"method": method, "beam": 3, "captions": 2, "groups": 2, "max_length": 6}
    for image, found in enumerate(search_images(model, features, vocabulary, settings)):
        assert found
        for spoken in found:
            said = [*spoken.word_ids, 2][: len(spoken.log_probs)]
            fed = torch.tensor([[1, *spoken.word_ids]])[:, : len(said)]
            hidden = model.hidden(features.select(slice(image, image + 1)), fed).values
            known = model.readout(hidden).log_softmax(-1)[0]
            expected = known[torch.arange(len(said)), said]
            torch.testing.assert_close(torch.tensor(spoken.log_probs).double(), expected)
