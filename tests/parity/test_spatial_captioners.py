"""The spatial transformer and its LSTM baseline against the values of the original program."""

from __future__ import annotations

import pytest
import torch
from image_networks import Golden
from spatial_captioners import (
    MODELS,
    SHOW_TELL,
    boxes_behind,
    image,
    load,
    regions,
    show_tell,
    transformer,
)
from torch import Tensor

from capscope.features.geometry import grid_weights
from capscope.importers.spatial import to_original
from capscope.models.captioner import Captioner
from capscope.models.ensemble import Ensemble
from capscope.models.layers.transformer import sinusoids
from capscope.models.spatial import SpatialTransformer
from capscope.training.batches import CaptionBatch
from capscope.training.objectives import cross_entropy, self_critical_loss

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
LOG_PROBS = {"rtol": 0, "atol": 1e-4}
GRADIENTS = {"rtol": 1e-4, "atol": 1e-6}


def framed(golden: Golden) -> CaptionBatch:
    labels, masks = golden["in/labels"], golden["in/label_masks"]
    return CaptionBatch(labels[:, :-1], labels[:, 1:], masks[:, 1:] > 0)


def gradients(name: str, captioner: Captioner) -> dict[str, Tensor]:
    found = {key: parameter.grad for key, parameter in captioner.named_parameters()}
    return to_original(name, {key: g for key, g in found.items() if g is not None})


def compare_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) >= set(expected)
    for key, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            found[key],
            gradient,
            rtol=1e-4,
            atol=1e-6 + 1e-4 * scale,
            msg=lambda m, k=key: f"{k} {m}",
        )


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_computes_what_the_original_computes(name: str) -> None:
    golden = load(name)
    captioner, features, batch = transformer(golden), regions(golden), framed(golden)
    assert isinstance(captioner, SpatialTransformer)
    valid = features.valid
    if valid is None:
        valid = torch.ones(features.cells.shape[:2], dtype=torch.bool)
    seen: dict[str, Tensor] = {}

    def record(key: str):  # type: ignore[no-untyped-def]
        def hook(module: torch.nn.Module, inputs: object, output: object) -> None:
            seen[key] = output if isinstance(output, Tensor) else output[0]  # type: ignore[index]

        return hook

    captioner.positions.register_forward_hook(record("src_embed"))
    for i, layer in enumerate(captioner.encoder):
        layer.register_forward_hook(record(f"enc_layer{i}"))
    for i, layer in enumerate(captioner.decoder):
        layer.register_forward_hook(record(f"dec_layer{i}"))
        layer.cross.register_forward_hook(record(f"dec_cross_out{i}"))
    captioner.encoder_norm.register_forward_hook(record("enc"))
    hidden = captioner.hidden(features, batch.inputs)
    seen["dec"] = hidden.values
    seen["tgt_embed"] = captioner.embedded(batch.inputs, captioner.table[: batch.inputs.shape[1]])
    seen["logprobs"] = captioner.readout(hidden.values).log_softmax(-1)
    compared = set()
    for key, value in seen.items():
        if f"out/{key}" not in golden:
            continue
        which = valid if key.startswith(("enc", "src")) else batch.valid
        expected = golden[f"out/{key}"]
        torch.testing.assert_close(value[which], expected[which], **LOG_PROBS, msg=key)
        compared.add(key)
    assert {"enc", "dec", "tgt_embed", "logprobs", "enc_layer0", "dec_cross_out0"} <= compared
    assert hidden.layers is not None
    for kind, weights in (
        ("enc_attn", hidden.layers.encoder),
        ("dec_self_attn", hidden.layers.decoder),
        ("dec_cross_attn", hidden.layers.cross),
    ):
        rows = valid if kind == "enc_attn" else batch.valid
        for i, found in enumerate(weights):
            if f"out/{kind}{i}" in golden:
                expected = golden[f"out/{kind}{i}"].transpose(1, 2)[rows]
                torch.testing.assert_close(found.transpose(1, 2)[rows], expected, **CLOSE)
    for i, found in enumerate(hidden.layers.cross):
        if f"out/dec_cross_spatial_logits{i}" in golden:
            logits = golden[f"out/dec_cross_spatial_logits{i}"].squeeze(-1)
            expected = logits.masked_fill(~valid[:, None, None], -1e9).softmax(-1)
            torch.testing.assert_close(
                found.transpose(1, 2)[batch.valid], expected.transpose(1, 2)[batch.valid], **CLOSE
            )


@pytest.mark.parametrize("name", MODELS)
def test_cross_entropy_and_its_gradients_are_the_originals(name: str) -> None:
    golden = load(name)
    captioner = transformer(golden)
    loss = cross_entropy(captioner, regions(golden), framed(golden))
    torch.testing.assert_close(loss, golden["loss/xe"], **CLOSE)
    loss.backward()
    compare_gradients(gradients("spatial", captioner), golden.weights("grad_xe/"))


@pytest.mark.parametrize("name", MODELS)
def test_steps_with_caches_say_what_the_teacher_forced_pass_says(name: str) -> None:
    golden = load(name)
    captioner, features, batch = transformer(golden), regions(golden), framed(golden)
    memory = captioner.encode(features)
    state = captioner.start(memory)
    for t in range(batch.inputs.shape[1]):
        step = captioner.step(batch.inputs[:, t : t + 1], state, memory)
        state = step.state
        rows = batch.valid[:, t]
        expected = golden["out/logprobs"][:, t]
        torch.testing.assert_close(step.log_probs[:, 0][rows], expected[rows], **LOG_PROBS)


@pytest.mark.parametrize("name", MODELS)
def test_the_self_critical_loss_and_its_gradients_are_the_originals(name: str) -> None:
    golden = load(name)
    captioner, features = transformer(golden), regions(golden)
    drawn = golden["scst/seq"]
    inputs = torch.cat([torch.zeros_like(drawn[:, :1]), drawn[:, :-1]], 1)
    logits = captioner.readout(captioner.hidden(features, inputs).values)
    log_probs = logits.log_softmax(-1).gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
    said = torch.cat([torch.ones_like(drawn[:, :1]), drawn[:, :-1]], 1) > 0
    torch.testing.assert_close(log_probs[said], golden["scst/logps"][said], **LOG_PROBS)
    loss = self_critical_loss(log_probs, drawn, golden["scst/reward"][:, 0], end=0)
    torch.testing.assert_close(loss, golden["scst/loss"], **CLOSE)
    loss.backward()
    compare_gradients(gradients("spatial", captioner), golden.weights("grad_scst/"))


@pytest.mark.parametrize("name", MODELS)
def test_weights_go_back_to_the_originals_names_unchanged(name: str) -> None:
    golden = load(name)
    back = to_original("spatial", transformer(golden).state_dict())
    buffers = {"model.src_embed.rows", "model.src_embed.cols"}
    assert set(back) == set(golden.weights("w/")) - buffers
    for key, tensor in back.items():
        assert torch.equal(tensor, golden[f"w/{key}"]), key


@pytest.mark.parametrize("name", SHOW_TELL)
def test_show_tell_says_what_the_original_says(name: str) -> None:
    golden = load(name)
    captioner, features, batch = show_tell(golden), image(golden), framed(golden)
    log_probs = captioner.readout(captioner.hidden(features, batch.inputs).values).log_softmax(-1)
    expected = golden["out/logprobs"]
    torch.testing.assert_close(log_probs[batch.valid], expected[batch.valid], **CLOSE)
    loss = cross_entropy(captioner, features, batch)
    torch.testing.assert_close(loss, golden["loss/xe"], **CLOSE)
    loss.backward()
    compare_gradients(gradients("show_tell", captioner), golden.weights("grad_xe/"))
    back = to_original("show_tell", captioner.state_dict())
    assert set(back) == set(golden.weights("w/"))
    for key, tensor in back.items():
        assert torch.equal(tensor, golden[f"w/{key}"]), key


def test_an_ensemble_says_the_mean_of_probabilities() -> None:
    golden = load("ensemble.npz")
    prefixes = sorted({key.split("/")[0] for key in golden.keys("") if key.startswith("w")})
    ensemble = Ensemble([transformer(golden, f"{prefix}/") for prefix in prefixes]).eval()
    memory = ensemble.encode(regions(golden))
    first = torch.zeros(len(golden["in/labels"]), 1, dtype=torch.long)
    found = ensemble.step(first, ensemble.start(memory), memory).log_probs[:, 0]
    torch.testing.assert_close(found, golden["out/first_step_logprobs"], **CLOSE)


def test_position_encodings_are_the_originals() -> None:
    golden = load("spatial_pe.npz")
    for key in golden.keys("decoder_pe"):
        expected = golden[f"decoder_pe{key}"]
        found = sinusoids(*expected.shape)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["gxg", "g2", "box-coord", "fixed"])
def test_box_positions_add_what_the_original_adds(kind: str) -> None:
    from capscope.features.visual import Features
    from capscope.models.layers.box_positions import BoxPositions

    golden = load("spatial_pe.npz")
    x, boxes = golden["img"], golden["boxes_rel"].unsqueeze(0)
    side = round(golden["grid_vec"].shape[-1] ** 0.5)
    ours = {
        "gxg": {"fc1": "row_layer", "fc2": "column_layer", "fc3": "own_layer"},
        "g2": {"fc": "cell_layer"},
        "box-coord": {"fc.0": "box_inner", "fc.2": "box_outer"},
        "fixed": {},
    }[kind]
    module = BoxPositions("box" if kind == "box-coord" else kind, x.shape[-1], side)  # type: ignore[arg-type]
    module.load_state_dict(
        {
            f"{name}.{part}": golden[f"{kind}/w/{theirs}.{part}"]
            for theirs, name in ours.items()
            for part in ("weight", "bias")
        }
    )
    expected = golden["fixed_out_INTENDED" if kind == "fixed" else f"{kind}/out"]
    torch.testing.assert_close(module(x, Features(x, boxes)), expected, rtol=1e-5, atol=2e-6)
    if kind == "fixed":
        torch.testing.assert_close(module.columns, golden["fixed_pe1"], rtol=0, atol=1e-6)
        torch.testing.assert_close(module.rows, golden["fixed_pe2"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_boxes_recovered_from_grid_vectors_are_spread_alike(name: str) -> None:
    weights = load(name)["in/grid_vec"]
    side = round(weights.shape[-1] ** 0.5)
    torch.testing.assert_close(grid_weights(boxes_behind(weights), side), weights)
