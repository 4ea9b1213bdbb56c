"""The recurrent captioners against the values of the original program."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_networks import Golden
from recurrent_captioners import GIVEN, NAMES, SPECIAL, captioner_of, features_of
from torch import Tensor

from capscope.decoding.sampling import argmax, roll_out
from capscope.importers.rnn_family import CELLS, from_original, to_original
from capscope.models.captioner import Captioner
from capscope.models.layers.recurrent import RNN, SingleBiasLSTM

GRADIENTS = {"rtol": 1e-4, "atol": 1e-5}


def gradients_by_original_name(name: str, captioner: Captioner) -> dict[str, Tensor]:
    """Return the gradients of all parameters in the original's layout."""
    twin = from_original(name, to_original(name, captioner))[0]
    with torch.no_grad():
        for (key, parameter), (_, own) in zip(
            twin.named_parameters(), captioner.named_parameters(), strict=True
        ):
            assert own.grad is not None, key
            parameter.copy_(own.grad)
    return to_original(name, twin)


@pytest.mark.parametrize("cell", NAMES)
def test_teacher_forcing_gives_the_published_scores_states_and_gradients(cell: str) -> None:
    golden = Golden(f"rnn_family/captioning_{cell}.npz")
    captioner, name = captioner_of(golden)
    features, captions = features_of(golden), golden["captions"]
    memory = captioner.encode(features)
    torch.testing.assert_close(memory["first"][:, 0], golden["h0"], **GIVEN)
    hidden = captioner.hidden(features, captions[:, :-1])
    scores = captioner.readout(hidden.values)
    torch.testing.assert_close(scores, golden["scores"], **GIVEN)
    if "A" in golden:
        torch.testing.assert_close(
            memory["values"], golden["A"].flatten(2).transpose(1, 2), **GIVEN
        )
        torch.testing.assert_close(hidden.attention, golden["tf_attn_weights"].flatten(2), **GIVEN)
    loss = torch.nn.functional.cross_entropy(
        scores.flatten(0, 1),
        captions[:, 1:].flatten(),
        ignore_index=golden.meta["ignore_index"],
        reduction="sum",
    ) / len(captions)
    torch.testing.assert_close(loss, golden["loss"], **GIVEN)
    loss.backward()
    found = gradients_by_original_name(name, captioner)
    expected = golden.weights("grad.")
    assert set(found) == set(expected) == set(golden.meta["params_with_grad"])
    for key, gradient in expected.items():
        own = found[key]
        if own.shape != gradient.shape:  # stored thinned out
            own = own[:, :: own.shape[1] // gradient.shape[1]]
        torch.testing.assert_close(own, gradient, **GRADIENTS, msg=key)


@pytest.mark.parametrize("cell", NAMES)
@pytest.mark.parametrize("ending", ["", "_end"])
def test_greedy_decoding_gives_the_words_of_the_corrected_loop(cell: str, ending: str) -> None:
    golden = Golden(f"rnn_family/captioning_{cell}{ending}.npz")
    captioner, _ = captioner_of(golden)
    features = features_of(golden)
    lengths = sorted(
        int(k.removesuffix("_ids")) for k in golden.keys("fixed") if k.endswith("_ids")
    )
    assert lengths
    start, end = markers_of(golden)
    for steps in lengths:
        ids, log_probs = golden[f"fixed{steps}_ids"], golden[f"fixed{steps}_logprobs"]
        memory = captioner.encode(features)
        with torch.no_grad():
            found = roll_out(captioner, memory, argmax, start=start, end=end, steps=steps)
        torch.testing.assert_close(found.word_ids[:, 0, : ids.shape[1]], ids)
        said = ids != 0
        torch.testing.assert_close(found.log_probs[:, 0][said], log_probs[said], **GIVEN)
        if f"fixed{steps}_attn_weights" in golden:
            inputs = torch.cat([torch.full((len(ids), 1), start), ids[:, :-1]], 1)
            maps = captioner.hidden(features, inputs.masked_fill(inputs == end, 0)).attention
            expected = golden[f"fixed{steps}_attn_weights"].flatten(2)
            torch.testing.assert_close(maps * said.unsqueeze(2), expected, **GIVEN)


@pytest.mark.parametrize("cell", NAMES)
@pytest.mark.parametrize("ending", ["", "_end"])
def test_greedy_decoding_as_published_feeds_attention_the_start_and_does_not_stop(
    cell: str, ending: str
) -> None:
    golden = Golden(f"rnn_family/captioning_{cell}{ending}.npz")
    captioner, _ = captioner_of(golden)
    features = features_of(golden)
    start, end = markers_of(golden)
    keys = [key.removesuffix("_ids") for key in golden.keys("sample") if key.endswith("_ids")]
    assert keys
    for length in map(int, keys):
        ids = golden[f"sample{length}_ids"]
        assert ids.shape[1] == length
        assert (ids[:, 0] == start).all()
        memory = captioner.encode(features)
        options = {"feed": "start" if captioner.attends else "words", "start": start, "end": end}
        with torch.no_grad():
            found = roll_out(captioner, memory, argmax, steps=length - 1, stop=False, **options)
            stopped = roll_out(captioner, memory, argmax, steps=length - 1, **options)
        torch.testing.assert_close(found.word_ids[:, 0], ids[:, 1:])
        if f"sample{length}_ids_cut" in golden:
            cut = golden[f"sample{length}_ids_cut"][:, 1:]
            torch.testing.assert_close(stopped.word_ids[:, 0], cut)
        if captioner.attends:
            maps = golden[f"sample{length}_attn_weights"].flatten(2)
            assert not maps[:, 0].any()
            fed = torch.full((len(ids), length - 1), start)
            attention = captioner.hidden(features, fed).attention
            torch.testing.assert_close(attention, maps[:, 1:], **GIVEN)


def markers_of(golden: Golden) -> tuple[int, int]:
    """Return the ids of start and end."""
    words = golden.meta.get("words", SPECIAL)
    return words.index("<START>"), words.index("<END>")


@pytest.mark.parametrize("cell", NAMES)
def test_the_cells_step_and_run_as_published(cell: str) -> None:
    golden = Golden("rnn_family/cells.npz")
    weights = golden.weights(f"{cell}.")
    x, h0 = golden["x"].requires_grad_(), golden["h0"].requires_grad_()
    grid = golden["A"].flatten(2).transpose(1, 2).requires_grad_()
    gates = weights["b"].shape[0] // weights["Wh"].shape[0]
    assert gates == (1 if cell == "rnn" else 4)

    def rows(weight: Tensor) -> Tensor:
        parts = weight.T.chunk(gates)
        return torch.cat([parts[i] for i in (0, 1, 3, 2)]) if gates == 4 else weight.T

    hidden = weights["Wh"].shape[0]
    module: RNN | SingleBiasLSTM
    if cell == "rnn":
        module = RNN(x.shape[-1], hidden)
        module.load_state_dict(
            {
                "weight_ih": rows(weights["Wx"]),
                "weight_hh": rows(weights["Wh"]),
                "bias": weights["b"],
            }
        )
        states = [h0]
        for t in range(x.shape[1]):
            states.append(module(module.project(x[:, t]), states[-1]))
        torch.testing.assert_close(
            module(module.project(x[:, 0]), h0), golden["rnn/step_h"], **GIVEN
        )
        found = torch.stack(states[1:], 1)
    else:
        inputs = [x.shape[-1]] + ([hidden] if cell == "attn" else [])
        module = SingleBiasLSTM(inputs, hidden)
        visible = torch.cat([weights["Wx"], *([weights["Wattn"]] if cell == "attn" else [])])
        module.load_state_dict(
            {
                "weight_ih": rows(visible),
                "weight_hh": rows(weights["Wh"]),
                "bias_ih": rows(weights["b"].unsqueeze(0)).squeeze(1),
            }
        )

        def step(t: int, h: Tensor, c: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            projected = module.project(0, x[:, t : t + 1], bias=True)
            if context is not None:
                projected = projected + module.project(1, context.unsqueeze(1))
            cell_ = module(projected, h.unsqueeze(1), c.unsqueeze(1))
            return cell_.h[:, 0], cell_.c[:, 0]

        context = golden["attn_step"] if cell == "attn" else None
        h, c = step(0, h0, golden["c0_step"], context)
        torch.testing.assert_close(h, golden[f"{cell}/step_h"], **GIVEN)
        torch.testing.assert_close(c, golden[f"{cell}/step_c"], **GIVEN)
        if cell == "attn":
            from capscope.models.layers.multi_head import attention_weights

            h = c = grid.mean(1)
            maps, contexts = [], []
        else:
            h, c = h0, torch.zeros_like(h0)
        hs, cs = [], []
        for t in range(x.shape[1]):
            if cell == "attn":
                maps.append(attention_weights(h.unsqueeze(1), grid, 1)[:, 0, 0])
                contexts.append((maps[-1].unsqueeze(1) @ grid)[:, 0])
            h, c = step(t, h, c, contexts[-1] if cell == "attn" else None)
            hs.append(h)
            cs.append(c)
        found = torch.stack(hs, 1)
        torch.testing.assert_close(torch.stack(cs, 1), golden[f"{cell}/c_all"], **GIVEN)
        if cell == "attn":
            torch.testing.assert_close(
                torch.stack(maps, 1), golden["attn/attn_weights_all"].flatten(2), **GIVEN
            )
            torch.testing.assert_close(
                torch.stack(contexts, 1), golden["attn/attn_emb_all"], **GIVEN
            )
        else:
            torch.testing.assert_close(
                module.all_steps(x, h0.unsqueeze(1), torch.zeros_like(h0).unsqueeze(1)),
                golden["lstm/hn"],
                **GIVEN,
            )
    torch.testing.assert_close(found, golden[f"{cell}/hn"], **GIVEN)
    (found * golden["upstream_grad"]).sum().backward()
    torch.testing.assert_close(x.grad, golden[f"{cell}/grad_x"], **GRADIENTS)
    if cell == "attn":
        expected = golden["attn/grad_A"].flatten(2).transpose(1, 2)
        torch.testing.assert_close(grid.grad, expected, **GRADIENTS)
    else:
        torch.testing.assert_close(h0.grad, golden[f"{cell}/grad_h0"], **GRADIENTS)
    gradients = {
        "grad_Wx": rows_back(module.weight_ih.grad, gates)[: x.shape[-1]],
        "grad_Wh": rows_back(module.weight_hh.grad, gates),
        "grad_b": rows_back(
            (module.bias if isinstance(module, RNN) else module.bias_ih).grad.unsqueeze(1), gates
        ).squeeze(0),
    }
    if cell == "attn":
        gradients["grad_Wattn"] = rows_back(module.weight_ih.grad, gates)[x.shape[-1] :]
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, golden[f"{cell}/{key}"], **GRADIENTS, msg=key)
    for key in golden.keys(f"{cell}/manual_d"):  # the published manual backward pass
        ours = {"x": x.grad, "h0": h0.grad}.get(key, gradients.get(f"grad_{key}"))
        torch.testing.assert_close(ours, golden[f"{cell}/manual_d{key}"], **GRADIENTS, msg=key)


def rows_back(weight: Tensor | None, gates: int) -> Tensor:
    """Turn rows i, f, g, o into the original's columns i, f, o, g."""
    assert weight is not None
    if gates == 1:
        return weight.T
    parts = weight.chunk(gates)
    return torch.cat([parts[i] for i in (0, 1, 3, 2)]).T


def test_weights_go_back_to_the_original_layout_unchanged() -> None:
    for cell, name in NAMES.items():
        golden = Golden(f"rnn_family/captioning_{cell}.npz")
        captioner, _ = captioner_of(golden)
        for key, tensor in to_original(name, captioner).items():
            np.testing.assert_array_equal(tensor.detach().numpy(), golden[f"w.{key}"].numpy(), key)
    assert set(CELLS) == set(NAMES.values())
