"""Show-tell, show-attend-tell and the object relation encoder against torch and plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.captioner import Captioner
from capscope.relevance.backward import word_relevance
from capscope.relevance.rules import GRADIENT, LRP

SIZES: dict[str, Any] = {"vocabulary_size": 9, "feature_size": 5, "embedding": 4, "hidden": 6}
CONFIGS: dict[str, dict[str, Any]] = {
    "show_tell, lstm": {"cell": "lstm", "layers": 1},
    "show_tell, two gru": {"cell": "gru", "layers": 2},
    "show_attend_tell, two lstm": {"cell": "lstm", "layers": 2, "attention": 3},
    "show_attend_tell, gru": {"cell": "gru", "layers": 1, "attention": 3},
    "show_attend_tell, linear score": {"cell": "lstm", "layers": 1, "attention": 0},
}


def captioner(kind: str, **more: Any) -> Captioner:
    torch.manual_seed(0)
    model = build(kind.split(",")[0], **{**SIZES, **CONFIGS[kind], "dropout": 0.3, **more})
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    return model.double().eval()


def batch(padded: bool = False) -> tuple[Features, Tensor]:
    generator = torch.Generator().manual_seed(1)
    cells = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator)
    valid = torch.tensor([[True] * 4, [True, True, False, False], [True] * 3 + [False]])
    word_ids = torch.randint(0, 9, (3, 5), generator=generator)
    return Features(cells, valid=valid if padded else None), word_ids


def fused(model: Captioner) -> nn.LSTM | nn.GRU:
    """Return torch's own recurrent network with the weights of a captioner's cells."""
    cells = list(model.stack.cells)
    kind = nn.LSTM if cells[0].kind == "lstm" else nn.GRU
    twin = kind(
        cells[0].weight_ih.shape[1],
        model.hidden_size,
        len(cells),
        bias=False,
        batch_first=True,
        dtype=torch.float64,
    )
    twin.load_state_dict(
        {f"{name}_l{i}": p for i, cell in enumerate(cells) for name, p in cell.named_parameters()}
    )
    return twin


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind.startswith("show_tell")])
def test_show_tell_is_torchs_network_on_image_then_words(kind: str) -> None:
    model, (features, word_ids) = captioner(kind), batch(padded=True)
    part = features.valid.double() / features.valid.sum(1, keepdim=True)
    image = model.projection((part.unsqueeze(1) @ features.cells).squeeze(1))
    inputs = torch.cat([image.unsqueeze(1), model.embedding(word_ids)], 1)
    expected = model.words(fused(model)(inputs)[0][:, 1:])
    hidden = model.hidden(features, word_ids)
    torch.testing.assert_close(model.readout(hidden.values), expected)
    assert hidden.attention is None


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind.startswith("show_attend")])
def test_show_attend_tell_is_torchs_network_with_attention_of_the_state_before(kind: str) -> None:
    model, (features, word_ids) = captioner(kind), batch(padded=True)
    network = fused(model)
    hidden = model.hidden(features, word_ids)
    for row in range(3):
        cells = features.cells[row, features.valid[row]]
        first = model.first(cells.mean(0)).view(network.num_layers, 1, -1)
        h, c = first, first
        for t, word in enumerate(word_ids[row]):
            scores = []
            for cell in cells:
                added = model.visual(cell) + model.query(h[-1, 0])
                scores.append(added if model.score is None else model.score(torch.tanh(added)))
            weights = torch.cat(scores).softmax(0)
            x = torch.cat([model.embedding(word), weights @ cells])[None, None]
            if isinstance(network, nn.LSTM):
                out, (h, c) = network(x, (h, c))
            else:
                out, h = network(x, h)
            torch.testing.assert_close(hidden.values[row, t], out[0, 0])
            found = hidden.attention[row, t]
            torch.testing.assert_close(found[features.valid[row]], weights)
            assert found[~features.valid[row]].eq(0).all()


@pytest.mark.parametrize("kind", CONFIGS)
def test_steps_say_what_the_whole_pass_says(kind: str) -> None:
    model, (features, word_ids) = captioner(kind), batch(padded=True)
    expected = model.readout(model.hidden(features, word_ids).values).log_softmax(-1)
    memory = model.encode(features)
    state = model.start(memory, 2)
    for t in range(5):
        step = model.step(word_ids[:, t : t + 1].expand(-1, 2), state, memory)
        state = step.state
        for row in range(2):
            torch.testing.assert_close(step.log_probs[:, row], expected[:, t])


@pytest.mark.parametrize("kind", CONFIGS)
def test_relevance_is_conserved_without_biases_and_gradients_are_ordinary(kind: str) -> None:
    model, (features, word_ids) = captioner(kind), batch(padded=True)
    cells = features.cells.clone().requires_grad_()
    values = model.hidden(features._replace(cells=cells), word_ids[:, :-1]).values
    logits = model.readout(values, word_ids[:, 1:])
    found = word_relevance(model, features, word_ids, GRADIENT)
    for t in range(4):
        (gradient,) = torch.autograd.grad(logits[:, t].sum(), cells, retain_graph=True)
        torch.testing.assert_close(found.features[:, t], gradient)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.zero_()
    found = word_relevance(model, features, word_ids, replace(LRP, epsilon=0.0))
    assert found.features.abs().max() > 1e-3
    zeros = torch.zeros_like(found.absorbed)
    torch.testing.assert_close(found.absorbed, zeros, rtol=0, atol=1e-9)


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(CapscopeError, match="cell is 'rnn'; allowed: lstm, gru"):
        build("show_tell", **SIZES, cell="rnn")


@pytest.mark.parametrize("parity", [False, True])
@pytest.mark.parametrize("trigonometric", [False, True])
def test_object_relations_are_those_of_the_paper_pair_by_pair(
    trigonometric: bool, parity: bool
) -> None:
    """Herdade et al. 2019, equations 6 and 7, in plain Python."""
    from math import cos, log, sin

    torch.manual_seed(0)
    model = build(
        "object_relation",
        vocabulary_size=9,
        feature_size=5,
        hidden=8,
        heads=2,
        feed_forward=6,
        layers=2,
        trigonometric=trigonometric,
        parity=parity,
    ).double()
    boxes = torch.rand(1, 3, 2, 2, dtype=torch.float64).sort(2).values.flatten(2)
    cells = torch.zeros(1, 3, 5, dtype=torch.float64)
    found = model.relations(Features(cells, boxes))
    more = 1.0 if parity else 0.0
    for layer, bias in enumerate(found):
        for i in range(3):
            for j in range(3):
                (ax, ay, bx, by), (cx, cy, dx, dy) = boxes[0, i].tolist(), boxes[0, j].tolist()
                w, h, u, v = bx - ax + more, by - ay + more, dx - cx + more, dy - cy + more
                delta = [
                    log(max(abs((ax + bx - cx - dx) / 2) / w, 1e-3)),
                    log(max(abs((ay + by - cy - dy) / 2) / h, 1e-3)),
                    log(w / u),
                    log(h / v),
                ]
                if trigonometric:
                    angles = [100 * d / 1000 ** (k / 8) for d in delta for k in range(8)]
                    delta = [*map(sin, angles), *map(cos, angles)]
                weight, shift = model.geometry[layer].weight, model.geometry[layer].bias
                scored = weight @ torch.tensor(delta, dtype=torch.float64) + shift
                expected = scored.relu().clamp(min=1e-6).log()
                torch.testing.assert_close(bias[0, i, :, j], expected)
